/* SPDX-License-Identifier: Apache-2.0 */
/* Identity: the text form, and who is alive. */
#include "coord/config.h"
#include "tests/unit/unit.h"

#include <sys/wait.h>

static struct coord_identity self_identity(void)
{
	struct coord_identity self;
	assert_int_equal(coord_identity_self(&self), 0);
	return self;
}

static void test_self(void **state)
{
	struct coord_identity self = self_identity();
	assert_true(self.host[0] && self.boot[0]);
	assert_int_equal(self.pid, getpid());
	assert_true(self.pidns > 0 && self.start > 0);
	assert_int_equal(coord_identity_compare(&self, &self), COORD_CLAIM_OURS);
}

static void test_text(void **state)
{
	struct coord_identity self = self_identity(), back;
	char text[COORD_IDENTITY_MAX], again[COORD_IDENTITY_MAX];
	size_t len = coord_identity_format(&self, text);
	assert_int_equal(len, strlen(text));
	assert_int_equal(coord_identity_parse((struct coord_bytes){text, len}, &back), 0);
	assert_int_equal(coord_identity_compare(&self, &back), COORD_CLAIM_OURS);
	assert_string_equal(back.host, self.host);
	coord_identity_format(&back, again);
	assert_string_equal(text, again);
}

static void test_longest(void **state)
{
	struct coord_identity id = {.pidns = UINT64_MAX, .pid = UINT64_MAX, .start = UINT64_MAX},
			      back;
	char text[COORD_IDENTITY_MAX];
	memset(id.host, 'h', sizeof(id.host) - 1);
	memset(id.machine, ' ', sizeof(id.machine) - 1);
	memset(id.boot, '\n', sizeof(id.boot) - 1);
	size_t len = coord_identity_format(&id, text);
	assert_true(len < COORD_IDENTITY_MAX);
	assert_int_equal(coord_identity_parse((struct coord_bytes){text, len}, &back), 0);
	assert_string_equal(back.host, id.host);
	assert_int_equal(back.machine[0], '_');
	assert_true(back.start == UINT64_MAX);
}

static void test_malformed(void **state)
{
	static const char too_long[] =
		"host=a machine=0123456789012345678901234567890123456789012345678901234567890123 "
		"boot=c pidns=1 pid=2 start=3";
	static const char *const texts[] = {"", "host=a",
		"host=a machine=b boot=c pidns=1 pid=2 start=3 ",
		" host=a machine=b boot=c pidns=1 pid=2 start=3",
		"host=a machine=b boot=c pidns=1 pid=2 start=3\n",
		"host=a machine=b boot=c pidns=1 pid=2 start=3 more=4",
		"host=a  machine=b boot=c pidns=1 pid=2 start=3",
		"machine=b host=a boot=c pidns=1 pid=2 start=3",
		"host=a machine=b boot=c pidns=01 pid=2 start=3",
		"host=a machine=b boot=c pidns= pid=2 start=3",
		"host=a machine=b boot=c pidns=-1 pid=2 start=3",
		"host=a machine=b boot=c pidns=1 pid=18446744073709551616 start=3",
		"host=a machine=b boot=c pidns=1 pid=2 start=", too_long};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct coord_identity id = {.pid = 7};
		assert_int_equal(coord_identity_parse(coord_bytes_of(texts[i]), &id), -EINVAL);
		assert_int_equal(id.pid, 7);
	}
	struct coord_identity id;
	assert_int_equal(coord_identity_parse(
				 COORD_BYTES("host= machine= boot= pidns=0 pid=0 start=0"), &id),
		0);
	assert_string_equal(id.machine, "");
}

static void test_others(void **state)
{
	struct coord_identity self = self_identity(), other = self;
	strcpy(other.boot, "another");
	/* Without a machine id nothing is known of an earlier boot. */
	assert_int_equal(coord_identity_compare(&self, &other),
		self.machine[0] ? COORD_CLAIM_DEAD : COORD_CLAIM_ELSEWHERE);
	strcpy(self.machine, "m");
	strcpy(other.machine, "m");
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_DEAD);
	strcpy(other.host, "a-clone-of-the-image");
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_ELSEWHERE);
	other = self;
	strcpy(other.machine, "n");
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_ELSEWHERE);
	other = self;
	other.pidns++;
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_ELSEWHERE);
	other = self;
	other.start--; /* our pid, used before */
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_DEAD);
	other.pid = 0;
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_DEAD);
	other.pid = UINT64_MAX;
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_DEAD);
}

static void test_child(void **state)
{
	int ready[2], stop[2];
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(stop), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct coord_identity id;
		char c;
		close(stop[1]);
		if (coord_identity_self(&id) < 0 || write(ready[1], &id, sizeof(id)) != sizeof(id))
			_exit(1);
		_exit(read(stop[0], &c, 1) == 0 ? 0 : 1);
	}
	struct coord_identity self = self_identity(), other;
	assert_int_equal(read(ready[0], &other, sizeof(other)), sizeof(other));
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_HERE);
	close(stop[1]);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(info.si_status, 0);
	/* A zombie, and then nothing. */
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_DEAD);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(coord_identity_compare(&self, &other), COORD_CLAIM_DEAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_self),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_child),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
