/* SPDX-License-Identifier: Apache-2.0 */
/* What a mount shows at this moment, in one word; see suite.h. */
#include "tests/conformance/suite.h"

bool shows_member(struct client *client, const char *group, const char *member,
	const struct coord_bytes *data)
{
	struct answer a = {0};
	bool ret = client_member_get(client, group, member, &a) == 0 && a.len == 1;
	if (ret && data)
		ret = coord_bytes_equal(a.rows[0].data, *data) &&
		      !(a.rows[0].flags & COORD_ROW_BAD_DATA);
	answer_done(&a);
	return ret;
}

bool shows_group(struct client *client, const char *group, size_t members, const char *member)
{
	struct answer a = {0};
	bool ret = client_group_read(client, group, true, &a) == 0 && a.len == members &&
		   (!member || answer_find(&a, member, false));
	answer_done(&a);
	return ret;
}

bool shows_leader(struct client *client, const char *group, const char *id)
{
	struct answer a = {0};
	bool ret = client_group_read(client, group, false, &a) == 0 && answer_find(&a, id, true);
	answer_done(&a);
	return ret;
}

bool shows_held(
	struct client *client, enum coord_kind kind, const char *name, bool held, const char *owner)
{
	struct coord_lock_info info = {0};
	char buf[256] = "";
	if (client_lock_look(client, kind, name, &info, buf) || info.held != held)
		return false;
	return !held || !owner || coord_bytes_equal(info.owner, coord_bytes_of(owner));
}

bool lists(struct client *client, enum coord_kind kind, const char *stem, size_t count)
{
	struct answer a = {0};
	size_t len = strlen(stem), found = 0;
	bool well = client_lock_list(client, kind, &a) == 0;
	for (size_t i = 0; i < a.len; i++)
		found += a.rows[i].name.len >= len && !memcmp(a.rows[i].name.data, stem, len);
	answer_done(&a);
	return well && found == count;
}
