/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flock(2) and fcntl(2) onto the coordinator's holdings.
 *
 * flock goes by handle. fcntl goes by (inode, owner) whatever the handle, as POSIX wants, and ends with
 * that owner's FLUSH of any handle of the inode. A holding is linked (struct fs_use) with every handle
 * through which it was taken or waited for: these show it, and it ends with the last of them at the
 * latest. So OFD locks end with their handle: they come as fcntl with an owner that never
 * flushes. No request is under way on a handle that is released, so a holding that is waited for has a
 * use.
 *
 * flock and the first owner of fcntl on a handle share one holding (handle->holding): one program that
 * uses both does not shut itself out. What is held is what the stronger of the two needs. Another
 * owner on the same handle (after a fork) has a holding of its own, and takes the place of the first
 * when that one leaves. No holding serves the flock of two handles: they exclude each other.
 *
 * A wait that is interrupted keeps its place: the kernel sends the request again after SIGCONT or a
 * handled signal. Members are locked among the handles of this mount only; see members.c for what
 * holding one means.
 */
#include "fs/waits.h"

#include <assert.h>
#include <sys/file.h>

int fs_lock_errno(int code)
{
	switch (code < 0 ? -code : code) {
	case EHOSTDOWN:
	case ETIMEDOUT:
	case EOPNOTSUPP:
	case ESHUTDOWN:
	case ECANCELED:
		return ENOLCK;
	default:
		return code < 0 ? -code : code;
	}
}

/* Asks for what the wait and the other of the two that share the holding need. */
static void wait_ask(struct fs_wait *wait)
{
	const struct fs_holding *holding = wait->holding;
	enum coord_mode mode = wait->mode, other = wait->posix ? holding->flock : holding->posix;
	unsigned flags = wait->blocking ? COORD_LOCK_WAIT : 0;
	/* flock(2) may let go to convert; it must not take the other's lock along. */
	if (wait->posix || other != COORD_NONE)
		flags |= COORD_LOCK_ATOMIC;
	if (wait->call)
		flags |= COORD_LOCK_SHORT;
	coord_lock(holding->held, mode > other ? mode : other, flags, &wait->wait);
}

/* ---- Holdings ---- */

static struct coord_bytes lock_name(const struct fs_inode *inode, char buf[2 * COORD_NAME_MAX + 2])
{
	if (inode->kind != FS_MEMBER)
		return inode->name;
	struct coord_bytes group = inode->parent->name;
	memcpy(buf, group.data, group.len);
	buf[group.len] = 0;
	memcpy(buf + group.len + 1, inode->name.data, inode->name.len);
	return (struct coord_bytes){buf, group.len + 1 + inode->name.len};
}

/* Both lists at once: the shorter one decides. */
static bool is_used(const struct fs_holding *holding, const struct fs_handle *handle)
{
	const struct coord_list *a = holding->uses.next, *b = handle->uses.next;
	for (; a != &holding->uses && b != &handle->uses; a = a->next, b = b->next)
		if (coord_container(a, const struct fs_use, of_holding)->handle == handle ||
			coord_container(b, const struct fs_use, of_handle)->holding == holding)
			return true;
	return false;
}

/* Links a holding with a handle, if it is not. Returns 0 or -ENOMEM. */
static int use_add(struct fs_holding *holding, struct fs_handle *handle)
{
	if (is_used(holding, handle))
		return 0;
	struct fs_use *use = malloc(sizeof(*use));
	if (!use)
		return -ENOMEM;
	use->handle = handle;
	use->holding = holding;
	coord_list_add(&handle->uses, &use->of_handle);
	coord_list_add(&holding->uses, &use->of_holding);
	return 0;
}

static void use_free(struct fs_use *use)
{
	coord_list_remove(&use->of_handle);
	coord_list_remove(&use->of_holding);
	free(use);
}

/* The handle's own holding, for its flock. */
static void set_own(struct fs_handle *handle, struct fs_holding *holding)
{
	if (holding->handle)
		holding->handle->holding = NULL;
	holding->handle = handle;
	handle->holding = holding;
}

static int holding_new(struct fs *fs, struct fs_handle *handle, struct fs_holding **ret)
{
	char buf[2 * COORD_NAME_MAX + 2];
	struct fs_holding *holding = calloc(1, sizeof(*holding));
	if (!holding)
		return -ENOMEM;
	coord_list_init(&holding->uses);
	coord_list_init(&holding->waits);
	holding->inode = handle->inode;
	int r = use_add(holding, handle);
	if (r == 0)
		r = coord_holding_new(fs->coord, handle->inode->type->lock_kind,
			lock_name(handle->inode, buf), holding, &holding->held);
	if (r < 0) {
		if (!coord_list_empty(&holding->uses))
			use_free(coord_container(holding->uses.next, struct fs_use, of_holding));
		free(holding);
		return r;
	}
	if (!handle->holding)
		set_own(handle, holding);
	*ret = holding;
	return 0;
}

static void disown(struct fs *fs, struct fs_holding *holding)
{
	if (holding->owned)
		coord_table_remove(&fs->owners, &holding->node);
	holding->owned = false;
}

static int own(struct fs *fs, struct fs_holding *holding, uint64_t owner)
{
	static_assert(offsetof(struct fs_holding, owner) ==
			      offsetof(struct fs_holding, inode) + sizeof(holding->inode),
		"the key in one piece");
	holding->owner = owner;
	holding->node.key = (struct coord_bytes){
		(const char *)&holding->inode, sizeof(holding->inode) + sizeof(holding->owner)};
	int r = coord_table_add(&fs->owners, &holding->node);
	holding->owned = r == 0;
	return r;
}

static bool is_member(const struct fs_holding *holding)
{
	return holding->inode->kind == FS_MEMBER;
}

/* The member leaves with what bound it. */
static void unbind(struct fs *fs, struct fs_holding *holding)
{
	if (!holding->bound)
		return;
	holding->bound = false;
	fs_member_unbind(fs, holding->inode);
}

static bool has_wait(const struct fs_holding *holding, bool posix)
{
	const struct fs_wait *wait;
	coord_list_each (wait, &holding->waits, of_holding)
		if (wait->posix == posix)
			return true;
	return false;
}

/* Does it serve, or may it soon serve, the flock of its handle? */
static bool is_flocked(const struct fs_holding *holding)
{
	return holding->handle && (holding->flock != COORD_NONE || has_wait(holding, false));
}

/* What is held is about to change under those who wait to convert it, or whose answer is on its way:
 * they ask again, as if they had come after the change. */
static void waits_stop(struct fs_holding *holding)
{
	struct fs_wait *wait;
	coord_list_each (wait, &holding->waits, of_holding)
		if (wait->running)
			coord_wait_cancel(&wait->wait, false);
}

static void waits_restart(struct fs_holding *holding)
{
	struct fs_wait *wait;
	coord_list_each (wait, &holding->waits, of_holding)
		if (wait->running)
			wait_ask(wait);
}

void fs_holding_notify(struct fs_holding *holding)
{
	const struct fs_use *use;
	coord_list_each (use, &holding->uses, of_holding)
		fs_handle_notify(use->handle);
}

/* The backend's side is let go; who polls or holds a member learns it. */
static void let_go(struct fs *fs, struct fs_holding *holding)
{
	enum coord_holding_state state = coord_holding_state(holding->held);
	holding->flock = holding->posix = COORD_NONE;
	holding->dropped = false;
	if (state == COORD_FREE)
		return;
	if (state == COORD_HELD)
		waits_stop(holding);
	coord_unlock(holding->held, NULL, NULL);
	if (state == COORD_HELD)
		waits_restart(holding);
	fs_dirs_forget(holding->inode->parent, holding->inode->name);
	fs_holding_notify(holding);
	unbind(fs, holding);
}

static void holding_free(struct fs *fs, struct fs_holding *holding)
{
	assert(coord_list_empty(&holding->waits));
	let_go(fs, holding);
	disown(fs, holding);
	while (!coord_list_empty(&holding->uses))
		use_free(coord_container(holding->uses.next, struct fs_use, of_holding));
	if (holding->handle)
		holding->handle->holding = NULL;
	coord_holding_free(holding->held);
	free(holding->taker);
	free(holding);
}

bool fs_holding_lost(const struct fs_holding *holding)
{
	return holding->dropped || coord_holding_state(holding->held) == COORD_HOLDING_LOST;
}

static void downgrade(struct fs_holding *holding)
{
	struct coord_wait wait = {0};
	waits_stop(holding);
	coord_lock(holding->held, COORD_SHARED, COORD_LOCK_WAIT | COORD_LOCK_ATOMIC, &wait);
	coord_wait_cancel(&wait, false);
	waits_restart(holding);
	fs_dirs_forget(holding->inode->parent, holding->inode->name);
}

/* One of the two that share it has let go: what the other needs stays, and what it lost stays lost. */
static void one_left(struct fs *fs, struct fs_holding *holding)
{
	if (holding->posix == COORD_NONE && holding->flock == COORD_NONE)
		let_go(fs, holding);
	else if (coord_holding_mode(holding->held) == COORD_EXCLUSIVE &&
		 holding->flock != COORD_EXCLUSIVE && holding->posix != COORD_EXCLUSIVE)
		downgrade(holding);
}

/* Another owner's holding becomes one with that of the handle's flock, which it was shut out by. */
static void adopt(struct fs *fs, struct fs_holding *holding, struct fs_holding *other)
{
	struct fs_wait *wait, *next;
	struct fs_use *use, *after;
	uint64_t owner = other->owner;
	waits_stop(other);
	disown(fs, other);
	own(fs, holding, owner); /* the table has room: one has just left it */
	holding->posix = other->posix;
	holding->bound |= other->bound;
	other->bound = false;
	coord_list_each_safe (wait, next, &other->waits, of_holding) {
		coord_list_remove(&wait->of_holding);
		coord_list_add(&holding->waits, &wait->of_holding);
		wait->holding = holding;
		if (wait->running)
			wait_ask(wait);
	}
	coord_list_each_safe (use, after, &other->uses, of_holding) {
		if (is_used(holding, use->handle))
			continue;
		coord_list_remove(&use->of_holding);
		use->holding = holding;
		coord_list_add(&holding->uses, &use->of_holding);
	}
	holding_free(fs, other);
}

/* The first owner left the holding of a flock: the next on the same handle takes its place. */
static void adopt_next(struct fs *fs, struct fs_holding *holding)
{
	struct fs_holding *found = NULL;
	const struct fs_use *use;
	if (coord_holding_state(holding->held) != COORD_HELD)
		return;
	coord_list_each (use, &holding->handle->uses, of_handle) {
		struct fs_holding *other = use->holding;
		if (other == holding || !other->owned || is_flocked(other) ||
			fs_holding_lost(other))
			continue;
		if (!found || (coord_list_empty(&found->waits) && !coord_list_empty(&other->waits)))
			found = other;
	}
	if (found)
		adopt(fs, holding, found);
}

static struct fs_holding *posix_find(struct fs *fs, struct fs_inode *inode, uint64_t owner)
{
	struct {
		struct fs_inode *inode;
		uint64_t owner;
	} key = {inode, owner};
	struct coord_node *node = coord_table_find(
		&fs->owners, 0, (struct coord_bytes){(const char *)&key, sizeof(key)});
	return node ? coord_container(node, struct fs_holding, node) : NULL;
}

/* An owner that has no use of it any more leaves, and what nobody uses goes. */
static void tidy(struct fs *fs, struct fs_holding *holding)
{
	if (holding->owned && (holding->posix != COORD_NONE || has_wait(holding, true)))
		return;
	disown(fs, holding);
	if (!holding->handle)
		holding_free(fs, holding);
	else if (holding->flock != COORD_NONE)
		adopt_next(fs, holding);
}

/* The holding that an fcntl owner uses, from now on through this handle too. */
static int posix_holding(
	struct fs *fs, struct fs_handle *handle, uint64_t owner, struct fs_holding **ret)
{
	struct fs_holding *holding = posix_find(fs, handle->inode, owner);
	bool found = holding;
	int r = 0;
	if (!found)
		holding = handle->holding;
	if (!holding || (!found && holding->owned))
		r = holding_new(fs, handle, &holding);
	if (r < 0)
		return r;
	if (!found)
		r = own(fs, holding, owner);
	if (r == 0)
		r = use_add(holding, handle);
	if (r < 0)
		tidy(fs, holding);
	else
		*ret = holding;
	return r;
}

/* The holding for the flock of a handle: the one that fcntl has through it, if that serves no other
 * handle's flock. */
static int flock_holding(struct fs *fs, struct fs_handle *handle, struct fs_holding **ret)
{
	struct fs_holding *old = handle->holding, *found = NULL;
	const struct fs_use *use;
	*ret = old;
	if (old && (old->owned || is_flocked(old)))
		return 0;
	coord_list_each (use, &handle->uses, of_handle) {
		struct fs_holding *other = use->holding;
		if (other == old || !other->owned || is_flocked(other))
			continue;
		if (!found || coord_holding_mode(other->held) > coord_holding_mode(found->held))
			found = other;
	}
	if (!found)
		return old ? 0 : holding_new(fs, handle, ret);
	if (old)
		holding_free(fs, old);
	set_own(handle, found);
	*ret = found;
	return 0;
}

struct fs_holding *fs_handle_holding(const struct fs_handle *handle)
{
	struct fs_holding *found = NULL;
	const struct fs_use *use;
	coord_list_each (use, &handle->uses, of_handle) {
		struct fs_holding *holding = use->holding;
		if (fs_holding_lost(holding))
			return holding;
		if (!found && coord_holding_state(holding->held) == COORD_HELD)
			found = holding;
	}
	return found;
}

struct fs_handle *fs_holding_handle(const struct fs_holding *holding)
{
	return coord_container(holding->uses.next, struct fs_use, of_holding)->handle;
}

/* ---- Waiting ---- */

void fs_wait_drop(struct fs_wait *wait)
{
	if (!wait)
		return;
	struct fs *fs = wait->fs;
	if (wait->running)
		coord_wait_cancel(&wait->wait, wait->interrupted && wait->blocking);
	if (wait->join) {
		coord_req_drop(wait->join);
		let_go(fs, wait->holding);
	}
	coord_list_remove(&wait->of_holding);
	coord_list_remove(&wait->link);
	fs->pending--;
	fs_uid_wait_done(fs, wait->uid);
	free(wait->taker);
	free(wait);
}

/* A conversion of flock(2) that failed or was interrupted has let go of what was held. */
static void forget_let_go(struct fs *fs, struct fs_holding *holding)
{
	if (coord_holding_state(holding->held) != COORD_FREE || holding->dropped)
		return;
	bool had = holding->flock != COORD_NONE || holding->posix != COORD_NONE;
	holding->flock = holding->posix = COORD_NONE;
	if (had)
		unbind(fs, holding);
}

static void wait_answer(struct fs_wait *wait, int code)
{
	struct fs *fs = wait->fs;
	struct fs_holding *holding = wait->holding;
	bool interrupted = wait->interrupted;
	fuse_req_t req = wait->req;
	fs_wait_drop(wait);
	if (code)
		forget_let_go(fs, holding);
	/* Whoever cannot be told does not hold. */
	bool untold = fuse_reply_err(req, fs_lock_errno(code)) < 0 && code == 0;
	if (untold)
		let_go(fs, holding);
	else if (interrupted && coord_list_empty(&holding->waits))
		one_left(fs, holding); /* it may have been granted, and the answer on its way */
	if (!interrupted)
		tidy(fs, holding);
}

static void wait_interrupt(fuse_req_t req, void *user)
{
	struct fs_wait *wait = user;
	wait->interrupted = true;
	if (wait->registered)
		wait_answer(wait, EINTR);
}

static void excl_answer(struct fs_wait *wait, int status)
{
	struct fs_call *call = wait->call;
	call->lock = NULL;
	fs_wait_drop(wait);
	if (status == 0)
		fs_held_created(call);
	else
		fs_call_error(call, status == -EAGAIN ? EEXIST : status);
}

static void wait_end(struct fs_wait *wait, int status)
{
	if (wait->call)
		excl_answer(wait, status);
	else
		wait_answer(wait, status);
}

static void wait_joined(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_wait *wait = user;
	wait->join = NULL;
	fs_dirs_forget(wait->holding->inode->parent, wait->holding->inode->name);
	if (status < 0)
		let_go(wait->fs, wait->holding);
	wait_end(wait, status);
}

static void wait_granted(struct fs_wait *wait)
{
	struct fs_holding *holding = wait->holding;
	holding->dropped = false;
	if (wait->posix)
		holding->posix = wait->mode;
	else
		holding->flock = wait->mode;
	fs_dirs_forget(holding->inode->parent, holding->inode->name);
	free(holding->taker);
	holding->taker = wait->taker;
	wait->taker = NULL;
	int r = is_member(holding) ? fs_member_bind(wait, wait_joined) : 0;
	holding->bound |= is_member(holding) && r >= 0;
	if (r < 0)
		let_go(wait->fs, holding);
	if (r <= 0)
		wait_end(wait, r);
}

static void wait_done(struct coord_wait *coord_wait, int status)
{
	struct fs_wait *wait = coord_container(coord_wait, struct fs_wait, wait);
	wait->running = false;
	if (status == 0) {
		wait_granted(wait);
		return;
	}
	wait_end(wait, status);
}

static struct fs_wait *wait_new(fuse_req_t req, struct fs_handle *handle,
	struct fs_holding *holding, enum coord_mode mode, bool posix, bool blocking)
{
	struct fs *fs = fs_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs_uid *uid = blocking ? fs_uid_get(fs, ctx->uid) : NULL;
	if (!fs_uid_wait(uid))
		return NULL;
	struct fs_wait *wait = coord_zalloc(sizeof(*wait));
	if (!wait) {
		fs_uid_wait_done(fs, uid);
		return NULL;
	}
	wait->wait.fn = wait_done;
	wait->fs = fs;
	wait->req = req;
	wait->handle = handle;
	wait->holding = holding;
	wait->uid = uid;
	wait->mode = (uint8_t)mode;
	wait->posix = posix;
	wait->blocking = blocking;
	/* Now that he waits for the answer to this: later a look at him may hang. */
	wait->taker = fs_trace_new(fs, ctx->pid, ctx->uid);
	coord_list_add(&holding->waits, &wait->of_holding);
	holding->taker_pid = (uint32_t)ctx->pid;
	holding->taker_uid = ctx->uid;
	coord_holding_set_taker(holding->held, (uint32_t)ctx->pid, ctx->uid);
	coord_list_add(&fs->waits, &wait->link);
	fs->pending++;
	return wait;
}

static void wait_start(struct fs_wait *wait)
{
	struct fs_holding *holding = wait->holding;
	const struct fs_handle *handle = wait->handle;
	int r = 0;
	if (handle->leader && coord_holding_state(holding->held) == COORD_FREE)
		r = coord_holding_set_leader(
			holding->held, (struct coord_bytes){handle->leader, handle->leader_len});
	/* What rm took of the other of the two is not made good by this one. */
	if (holding->dropped && (wait->posix ? holding->flock : holding->posix) != COORD_NONE)
		r = -EIO;
	if (r < 0) {
		wait_end(wait, r);
		return;
	}
	wait->running = true;
	wait_ask(wait);
}

static int may_lock(fuse_req_t req, const struct fs_handle *handle, enum coord_mode mode)
{
	if (!handle->inode->type->lockable)
		return EOPNOTSUPP;
	if (mode == COORD_NONE)
		return 0;
	if (fs_of(req)->options.read_only)
		return EROFS;
	if (!fs_may_write(req, handle))
		return EACCES;
	if (handle->inode->kind == FS_LEADER && mode == COORD_SHARED)
		return EINVAL;
	return 0;
}

static void acquire(fuse_req_t req, struct fs_handle *handle, struct fs_holding *holding,
	enum coord_mode mode, bool posix, bool blocking)
{
	struct fs_wait *wait = wait_new(req, handle, holding, mode, posix, blocking);
	if (!wait) {
		tidy(fs_of(req), holding);
		fuse_reply_err(req, ENOLCK);
		return;
	}
	fuse_req_interrupt_func(req, wait_interrupt, wait);
	wait->registered = true;
	if (wait->interrupted) {
		wait_answer(wait, EINTR);
		return;
	}
	wait_start(wait);
}

/* ---- Unlocking ---- */

static void unlocked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	fs_call_error(call, 0);
}

/* An unlock is answered at once where the bytes of the release are on their way in order. Elsewhere (a driver
 * that works on threads) it waits a moment for the release, so that whoever is told of it,
 * on any host, finds the lock free. */
static void reply_unlocked(fuse_req_t req, struct fs_handle *handle, bool had)
{
	const struct fs *fs = fs_of(req);
	unsigned can = coord_config_of(fs->coord)->driver->can;
	if (!had || can & COORD_CAN_ORDERED || !handle->holding ||
		handle->inode->kind == FS_MEMBER) {
		fuse_reply_err(req, 0);
		return;
	}
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (!call)
		return;
	fs_call_limit(call, FS_SHORT_MS, 0);
	int r = coord_barrier(handle->holding->held, unlocked, call, &call->wait);
	if (r < 0)
		fs_call_error(call, 0);
}

/* ---- flock ---- */

void fs_flock(fuse_req_t req, struct fs_handle *handle, int op)
{
	struct fs *fs = fs_of(req);
	int what = op & ~LOCK_NB;
	enum coord_mode mode = what == LOCK_EX   ? COORD_EXCLUSIVE
			       : what == LOCK_SH ? COORD_SHARED
						 : COORD_NONE;
	int code = may_lock(req, handle, mode);
	if (code) {
		fuse_reply_err(req, code);
		return;
	}
	if (mode == COORD_NONE) {
		bool had = fs_handle_holding(handle);
		fs_flocks_release_flock(fs, handle);
		reply_unlocked(req, handle, had);
		return;
	}
	struct fs_holding *holding = NULL;
	int r = flock_holding(fs, handle, &holding);
	if (r < 0)
		fuse_reply_err(req, fs_lock_errno(r));
	else
		acquire(req, handle, holding, mode, false, !(op & LOCK_NB));
}

void fs_flocks_release_flock(struct fs *fs, struct fs_handle *handle)
{
	struct fs_holding *holding = handle->holding;
	if (!holding)
		return;
	holding->flock = COORD_NONE;
	one_left(fs, holding);
}

/* ---- fcntl ---- */

static void posix_unlock(struct fs *fs, struct fs_holding *holding)
{
	holding->posix = COORD_NONE;
	one_left(fs, holding);
	tidy(fs, holding);
}

void fs_setlk(fuse_req_t req, struct fs_handle *handle, uint64_t owner, const struct flock *lock,
	bool wait)
{
	struct fs *fs = fs_of(req);
	enum coord_mode mode = lock->l_type == F_WRLCK   ? COORD_EXCLUSIVE
			       : lock->l_type == F_RDLCK ? COORD_SHARED
							 : COORD_NONE;
	int code = lock->l_start != 0 ? EINVAL : may_lock(req, handle, mode);
	if (!handle->inode->type->lockable)
		code = EOPNOTSUPP;
	if (code) {
		fuse_reply_err(req, code);
		return;
	}
	struct fs_holding *holding;
	if (mode == COORD_NONE) {
		holding = posix_find(fs, handle->inode, owner);
		if (holding)
			posix_unlock(fs, holding);
		reply_unlocked(req, handle, holding);
		return;
	}
	int r = posix_holding(fs, handle, owner, &holding);
	if (r < 0)
		fuse_reply_err(req, fs_lock_errno(r));
	else
		acquire(req, handle, holding, mode, true, wait);
}

/* What the owner has, or would share if it locked through this handle. */
static const struct fs_holding *getlk_mine(
	struct fs *fs, const struct fs_handle *handle, uint64_t owner)
{
	const struct fs_holding *mine = posix_find(fs, handle->inode, owner);
	if (mine || !handle->holding || handle->holding->owned)
		return mine;
	return handle->holding;
}

static bool is_other(void *user, struct coord_holding *held)
{
	return coord_holding_user(held) != user;
}

static void reply_getlk(fuse_req_t req, const struct fs_handle *handle,
	const struct fs_holding *mine, enum coord_mode asked, const struct coord_lock_info *info)
{
	struct fs *fs = fs_of(req);
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	enum coord_mode own = mine ? coord_holding_mode(mine->held) : COORD_NONE;
	char buf[2 * COORD_NAME_MAX + 2];
	bool others =
		info->held && own != COORD_EXCLUSIVE && (own == COORD_NONE || info->holders > 1);
	if (others && (info->mode == COORD_EXCLUSIVE || asked == COORD_EXCLUSIVE)) {
		struct coord_holding *held =
			coord_lock_holders(fs->coord, handle->inode->type->lock_kind,
				lock_name(handle->inode, buf), is_other, (void *)mine);
		lock.l_type = info->mode == COORD_SHARED ? F_RDLCK : F_WRLCK;
		if (held)
			lock.l_pid =
				(pid_t)((struct fs_holding *)coord_holding_user(held))->taker_pid;
		else if (!info->local)
			lock.l_pid = (pid_t)info->pid;
	}
	fuse_reply_lock(req, &lock);
}

static void getlk_looked(void *user, int status, const struct coord_lock_info *info)
{
	struct fs_call *call = user;
	const struct fs_handle *handle = call->handle;
	struct coord_lock_info now;
	call->wait = NULL;
	if (status < 0) {
		fs_call_error(call, fs_lock_errno(status));
		return;
	}
	/* Of what is shared here, too, the look has told how many share it elsewhere. */
	if (coord_lock_peek(call->fs->coord, handle->inode->type->lock_kind, handle->inode->name,
		    &now) == 0)
		info = &now;
	reply_getlk(call->req, handle, getlk_mine(call->fs, handle, call->owner),
		(enum coord_mode)call->flags, info);
	fs_call_free(call);
}

void fs_getlk(fuse_req_t req, struct fs_handle *handle, uint64_t owner, const struct flock *lock)
{
	struct fs *fs = fs_of(req);
	enum coord_kind kind = handle->inode->type->lock_kind;
	enum coord_mode asked = lock->l_type == F_RDLCK ? COORD_SHARED : COORD_EXCLUSIVE;
	struct coord_lock_info info = {0};
	char buf[2 * COORD_NAME_MAX + 2];
	struct coord_bytes name = lock_name(handle->inode, buf);
	if (!handle->inode->type->lockable || lock->l_start != 0) {
		fuse_reply_err(req, lock->l_start ? EINVAL : EOPNOTSUPP);
		return;
	}
	const struct fs_holding *mine = getlk_mine(fs, handle, owner);
	if (kind == COORD_MEMBER) {
		fs_member_lock_info(fs, name, &info);
		reply_getlk(req, handle, mine, asked, &info);
		return;
	}
	/* What others hold is asked: a notice of it may be on its way. */
	int r = coord_lock_peek(fs->coord, kind, name, &info);
	bool unsure = r == 0 && mine && info.partial && asked == COORD_EXCLUSIVE;
	if (r != -EAGAIN && (r < 0 || (info.local && !unsure))) {
		if (r < 0)
			fuse_reply_err(req, -r);
		else
			reply_getlk(req, handle, mine, asked, &info);
		return;
	}
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (!call)
		return;
	call->flags = asked;
	call->owner = owner;
	fs_call_started(
		call, coord_lock_look(fs->coord, kind, name, getlk_looked, call, &call->wait));
}

void fs_flocks_flush(struct fs *fs, struct fs_inode *inode, uint64_t owner)
{
	struct fs_holding *holding = posix_find(fs, inode, owner);
	if (holding)
		posix_unlock(fs, holding);
}

/* ---- The rest ---- */

void fs_flocks_release(struct fs *fs, struct fs_handle *handle)
{
	while (!coord_list_empty(&handle->uses)) {
		struct fs_use *use = coord_container(handle->uses.next, struct fs_use, of_handle);
		struct fs_holding *holding = use->holding;
		use_free(use);
		if (coord_list_empty(&holding->uses)) {
			holding_free(fs, holding);
		} else if (holding == handle->holding) {
			holding->flock = COORD_NONE;
			holding->handle = NULL;
			handle->holding = NULL;
			one_left(fs, holding);
			tidy(fs, holding);
		}
	}
}

void fs_flocks_drop(struct fs *fs, struct fs_holding *holding)
{
	holding->dropped = true;
	coord_unlock(holding->held, NULL, NULL);
	fs_dirs_forget(holding->inode->parent, holding->inode->name);
	fs_holding_notify(holding);
	fs_held_lost(fs, holding);
}

void fs_flock_excl(struct fs_call *call)
{
	struct fs_holding *holding;
	int r = holding_new(call->fs, call->handle, &holding);
	if (r < 0) {
		fs_call_error(call, r);
		return;
	}
	struct fs_wait *wait =
		wait_new(call->req, call->handle, holding, COORD_EXCLUSIVE, false, false);
	if (!wait) {
		fs_call_error(call, ENOMEM);
		return;
	}
	wait->call = call;
	call->lock = wait;
	wait_start(wait);
}

size_t fs_waiting_pids(struct fs *fs, int32_t *ret, size_t max)
{
	size_t len = 0;
	const struct fs_wait *wait;
	coord_list_each (wait, &fs->waits, link) {
		if (len < max)
			ret[len] = fuse_req_ctx(wait->req)->pid;
		len++;
	}
	return len;
}

void fs_waits_end(struct fs *fs, int code)
{
	while (!coord_list_empty(&fs->waits))
		wait_end(coord_container(fs->waits.next, struct fs_wait, link), code);
}
