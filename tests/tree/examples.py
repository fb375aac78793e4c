# SPDX-License-Identifier: Apache-2.0
"""The examples of the README and the manuals, run word for word, and their output compared where it is shown.

Every block of code of these pages is either run here or named in NOT_RUN with the reason. They are run in
namespaces of their own, where /mnt, /srv, /var/lib, /run, /usr/sbin and /usr/local/bin are covered and the host is called vm, so
that nothing in them has to be replaced. What they call that only their reader has (./backup.sh ...) is a stub,
which notes how it was called and what was held at that moment.
"""
import ctypes
import functools
import os
import re
import socket
import subprocess
import unittest

import lib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = ["README.md", "docs/tree.md", "docs/mount.md", "docs/tooz-run.md"]
DIR = "/mnt/tooz"
HOST = "vm"
OPS_GID = 64123
CLONE_NEWNS, CLONE_NEWUTS = 0x20000, 0x4000000

# By the page and how the block begins.
NOT_RUN = {
    ("README.md", "mount-helpers/quickstart "): "installs packages, and builds what is under test",
    ("docs/tree.md", "/mnt/tooz\n├── groups"): "a picture",
    ("docs/tree.md", "member host-1          the state"): "lines with remarks; events.py has them all",
    ("docs/mount.md", "mount -t tooz URL DIR"): "a synopsis",
    ("README.md", "mount -t tooz redis://redis.example "): "there are no such hosts",
    ("docs/mount.md", "redis://redis.example "): "there is no such host",
    ("docs/mount.md", "meson setup build "): "builds and installs what is under test",
    ("docs/tooz-run.md", "tooz-run [-l FILE [-s]]..."): "a synopsis",
}
RUN = set()

# What a session shows that is another each time.
VARIES = [(r"^token=\d+$", r"token=\\d+"), (r"^pid=\d+$", r"pid=\\d+"),
          (r"^since=[\d-]+T[\d:]+\\?\.\d+Z$", r"since=\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}Z")]

STUB = f"""#!/bin/bash
shopt -s nullglob
cd {DIR}
echo "${{0##*/}}$(printf ' %s' "$@"):" locks/* leaders/* groups/*/* >> "$EXAMPLES_LOG"
"""


def blocks():
    """[(page, text)] of all that is fenced."""
    found = []
    for page in PAGES:
        path = os.path.join(TOP, page)
        if os.path.exists(path):
            text = lib.read(path).decode()
            found += [(page, x) for x in re.findall(r"^```(?:\w*)\n(.*?)^```$", text, re.M | re.S)]
    return found


def is_there(page, start):
    """tooz-run is a part of its own, with a page of its own."""
    return os.path.exists(os.path.join(TOP, "docs/tooz-run.md" if "tooz-run" in start else page))


def example(page, start):
    """A test that is given the block of this page that begins so."""
    RUN.add((page, start))

    def with_block(method):
        @functools.wraps(method)
        def test(self):
            if not is_there(page, start):
                self.skipTest("there is no tooz-run")
            found = [text for where, text in blocks() if where == page and text.startswith(start)]
            self.assertEqual(len(found), 1, f"blocks of {page} that begin with {start!r}")
            method(self, found[0])
        return test
    return with_block


def commands(block):
    """[(command, expected output)] of a session."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.M)
    if parts[0]:
        raise AssertionError(f"a session begins with $, not with {parts[0]!r}")
    return list(zip(parts[1::2], parts[2::2]))


def pattern(output):
    lines = []
    for line in output.splitlines():
        line = re.escape(line)
        for what, instead in VARIES:
            line = re.sub(what, instead, line.replace(r"\-", "-"))
        lines.append(line + "\n")
    return "".join(lines)


def cover():
    """The places that examples name, empty, and mount.tooz where mount(8) looks."""
    os.makedirs(os.path.join(lib.WORK, "cover"))
    done = lib.sh('''set -e
        mount -t tmpfs tmpfs "$1"
        for dir in /usr/sbin /usr/local/bin; do
            mkdir -p "$1/upper$dir" "$1/scratch$dir"
            mount -t overlay -o "lowerdir=$dir,upperdir=$1/upper$dir,workdir=$1/scratch$dir" overlay $dir
        done
        ln -sf "$2" /usr/sbin/mount.tooz
        for dir in /mnt /srv /var/lib /run; do mount -t tmpfs -o mode=755 tmpfs $dir; done
        cp /etc/group "$1/group"
        echo "ops:x:$3:" >> "$1/group"
        mount --bind "$1/group" /etc/group''', os.path.join(lib.WORK, "cover"), lib.TOOZFS, OPS_GID)
    if done.returncode:
        raise unittest.SkipTest("cannot cover directories: " + done.stderr.strip())


def setUpModule():  # noqa: N802, pylint: disable=invalid-name
    if not OWN_NAMESPACES:
        raise unittest.SkipTest("no namespaces of our own")
    socket.sethostname(HOST)
    cover()


class Pages(unittest.TestCase):
    def test_every_block_is_known(self):
        """Who adds an example adds its test, or the reason why there is none."""
        known = {key for key in {*RUN, *NOT_RUN} if is_there(*key)}
        for page, text in blocks():
            matches = [key for key in known if key[0] == page and text.startswith(key[1])]
            self.assertEqual(len(matches), 1, f"{page}: matched by {matches}:\n{text}")
            known.discard(matches[0])
        self.assertEqual(known, set(), "no such blocks any more")


class Examples(lib.Case):
    def setUp(self):
        self.work = lib.tempfile.mkdtemp(prefix="example", dir=lib.WORK)
        self.log = os.path.join(self.work, "log")
        lib.write(self.log, b"")
        self.home = os.path.join(self.work, "home")
        tools = os.path.join(self.work, "tools")
        os.makedirs(DIR, exist_ok=True)
        os.makedirs(os.path.join(self.home, "tooz"))
        os.makedirs(tools)
        if os.environ.get("TOOZ_RUN"):
            os.symlink(os.environ["TOOZ_RUN"], os.path.join(tools, "tooz-run"))
        os.symlink(lib.TOOZFS, os.path.join(tools, "toozfs"))
        self.env = dict(os.environ, HOME=self.home, EXAMPLES_LOG=self.log, LC_ALL="C.UTF-8",
                        PATH=f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin")
        self.tools = tools
        self.addCleanup(self.unmount, os.path.join(self.home, "tooz"))
        self.addCleanup(self.unmount, DIR)

    def unmount(self, directory):
        """And the daemon is gone."""
        if lib.mounted(directory):
            subprocess.run(["umount", directory], check=True, timeout=lib.PATIENCE_S)
        subprocess.run([lib.TOOZFS, "--wait", directory], check=True, timeout=lib.PATIENCE_S)

    def stub(self, *names, more=""):
        for name in names:
            path = os.path.join(self.work, name)
            lib.write(path, (STUB + more).encode())
            os.chmod(path, 0o755)

    def sh(self, script):
        return lib.sh(script, cwd=self.work, env=self.env, stdin=subprocess.DEVNULL,
                      timeout=3 * lib.PATIENCE_S)

    def good(self, script):
        """Runs it; gives what it wrote, which is nothing on standard error."""
        done = self.sh(script)
        self.assertEqual((done.returncode, done.stderr), (0, ""), script)
        return done.stdout

    def noted(self):
        """What the stubs wrote, a line a call."""
        return lib.read(self.log).decode().splitlines()

    def served(self):
        """A tree where the examples expect one."""
        return self.tree("file://" + self.store(), directory=DIR, member=HOST)

    def session(self, block):
        """Types it into one shell, and compares."""
        lines = commands(block)
        mark = "--- the end of a command ---"
        script = "".join(f"{command}\necho '{mark}' $?\n" for command, _ in lines)
        done = self.sh("exec 2>&1\n" + script)
        parts = re.split(rf"^{mark} (\d+)\n", done.stdout, flags=re.M)
        for i, (command, output) in enumerate(lines):
            self.assertLess(2 * i + 1, len(parts), f"the shell ended before {command}")
            self.assertRegex(parts[2 * i], rf"\A{pattern(output)}\Z", command)
            self.assertEqual(parts[2 * i + 1], "0", command)

    # ---- README.md ----

    @example("README.md", "flock /mnt/tooz/locks/nightly ")
    def test_readme_at_a_glance(self, block):
        """A second host joins meanwhile, and stays."""
        self.served()
        self.stub("backup.sh", "server")
        self.stub("active.sh", more="touch groups/web/host-2\n")
        self.assertEqual(self.good("set -e\n" + block), "host-2\nhost-2\n")
        self.assertEqual(self.noted(), ["backup.sh : locks/nightly", "active.sh : leaders/web",
                                        "server : groups/web/host-1 groups/web/host-2"])

    @example("README.md", "$ mkdir -p /mnt/tooz && mount ")
    def test_readme_session(self, block):
        os.rmdir(DIR)
        self.session(block)
        self.assertFalse(lib.mounted(DIR))

    # ---- docs/tree.md ----

    @example("docs/tree.md", "flock /mnt/tooz/locks/nightly ")
    def test_three_kinds_of_file(self, block):
        self.served()
        self.stub("backup.sh", "active.sh", "server")
        self.assertEqual(self.good("set -e\n" + block), "")
        self.assertEqual(self.noted(), ["backup.sh : locks/nightly", "active.sh : leaders/web",
                                        "server : groups/web/host-1"])

    @example("docs/tree.md", "exec 9<>/mnt/tooz/locks/deploy\n")
    def test_lock_in_a_script(self, block):
        self.served()
        self.stub("deploy")
        tokens = []
        for _ in range(2):
            self.assertEqual(self.good(block), "")
            tokens.append(int(re.fullmatch(r"deploy --fence (\d+): locks/deploy", self.noted()[-1])[1]))
        self.assertGreater(tokens[1], tokens[0])
        # The lock is broken before it is read.
        lib.write(os.path.join(self.tools, "sed"), f'#!/bin/sh\nrm {DIR}/locks/deploy\n'
                  'exec /bin/sed "$@"\n'.encode())
        os.chmod(os.path.join(self.tools, "sed"), 0o755)
        done = self.sh(block)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Input/output error", done.stderr)
        self.assertEqual(len(self.noted()), 2, "it went on without the lock")

    @example("docs/tree.md", "while read -r what name; do\n")
    def test_following_a_group(self, block):
        tree = self.served()
        self.stub("reload-pool")
        os.mkdir(tree("groups/web"))
        script = self.spawn("bash", "-c", block, cwd=self.work, env=self.env)
        member = tree("groups/web/host-1")

        def reloaded():
            """Joins or leaves until one of it is seen: what came before the file was open is not."""
            os.unlink(member) if os.path.exists(member) else lib.touch(member)
            return self.noted()
        lib.wait_until(reloaded, "the first change to be seen")
        self.assertEqual(self.noted()[0].split(":")[0], "reload-pool ")
        self.assertIsNone(script.poll())
        if os.path.exists(member):
            os.unlink(member)
        os.rmdir(tree("groups/web"))
        self.assertEqual(script.wait(lib.PATIENCE_S), 0)

    @example("docs/tree.md", "read -r owner </mnt/tooz/rings/web/job-42 ")
    def test_owner_of_an_object(self, block):
        tree = self.served()
        self.stub("job-42")
        os.mkdir(tree("groups/web"))
        for owner, runs in ("host-2", 0), ("host-1", 1):
            lib.touch(tree("groups/web", owner))
            done = self.sh(block)
            self.assertEqual((done.returncode == 0, done.stderr), (bool(runs), ""))
            self.assertEqual(len(self.noted()), runs)
            os.unlink(tree("groups/web", owner))

    # ---- docs/mount.md ----

    def shows(self, directory, **wanted):
        for name, value in wanted.items():
            self.assertEqual(lib.read(os.path.join(directory, ".tooz", name)).decode(), value + "\n")

    @example("docs/mount.md", "mount -t tooz file:///srv/tooz ")
    def test_mounting(self, block):
        self.assertEqual(self.good("set -e\n" + block), "")
        self.shows(DIR, state="connected", member=HOST, url="file:///srv/tooz")
        self.shows(os.path.join(self.home, "tooz"), state="connected", member="laptop-2",
                   url="file:///var/lib/tooz")

    @example("docs/mount.md", "file:///srv/tooz  /mnt/tooz  tooz ")
    def test_fstab(self, block):
        fstab = os.path.join(self.work, "fstab")
        lib.write(fstab, block.encode())
        self.assertEqual(self.good(f"mount -T {fstab} {DIR}"), "")
        self.shows(DIR, state="connected", member="web-3", url="file:///srv/tooz")
        self.locks(OPS_GID, True)
        self.locks(OPS_GID + 1, False)

    def locks(self, gid, may):
        """May somebody of this group take a lock?"""
        agent = self.agent(uid=65534, gid=gid)
        path = os.path.join(DIR, f"locks/by-{gid}")
        if may:
            agent.close(agent.open_flock(path, os.O_RDWR | os.O_CREAT, lib.EX | lib.NB))
        else:
            self.fails(lib.errno.EACCES, agent.open, path)

    @example("docs/mount.md", "mount -t tooz none /mnt/tooz -o allow_other,gid=ops")
    def test_other_users(self, block):
        """The first line for a group, the second for everybody."""
        first, second = block.splitlines()
        for line, others in (first, False), (second, True):
            self.assertEqual(self.good(line), "")
            self.locks(OPS_GID, True)
            self.locks(OPS_GID + 1, others)
            self.unmount(DIR)

    # ---- docs/tooz-run.md ----

    @example("README.md", "tooz-run -l /mnt/tooz/locks/nightly ")
    def test_readme_tooz_run(self, block):
        self.served()
        self.stub("backup.sh")
        self.assertEqual(self.good(block), "")
        self.assertEqual(self.noted(), ["backup.sh : locks/nightly"])

    @example("docs/tooz-run.md", "tooz-run -l /mnt/tooz/locks/nightly ")
    def test_run_three_kinds(self, block):
        os.mkdir(self.served()("groups/web"))
        self.stub("backup.sh", "active.sh")
        self.stub("server", more="cat groups/web/host-1\n")
        self.assertEqual(self.good("set -e\n" + block), '{"port":80}\n')
        self.assertEqual(self.noted(), ["backup.sh : locks/nightly", "active.sh : leaders/web",
                                        "server : groups/web/host-1"])

    @example("docs/tooz-run.md", "0 2 * * *  tooz-run ")
    def test_run_cron(self, block):
        tree = self.served()
        self.stub("/usr/local/bin/backup")
        command = block.split(maxsplit=5)[5]
        self.assertEqual(self.good(command), "")
        held = ["backup : locks/nightly"]
        self.assertEqual(self.noted(), held)
        agent = self.agent()
        lib.wait_until(lambda: not os.listdir(tree("locks")), "the release")
        agent.open_flock(tree("locks/nightly"), os.O_RDWR | os.O_CREAT, lib.EX)
        self.assertEqual(self.good(command), "")
        self.assertEqual(self.noted(), held, "two hosts did it")

    @example("docs/tooz-run.md", "tooz-run -w 60 -l /mnt/tooz/locks/deploy ")
    def test_run_with_the_token(self, block):
        self.served()
        self.stub("deploy")
        self.assertEqual(self.good(block), "")
        self.assertRegex(self.noted()[0], r"^deploy --fence [1-9]\d*: locks/deploy$")

    @example("docs/tooz-run.md", "tooz-run -l /mnt/tooz/locks/data -s ")
    def test_run_readers_and_writer(self, block):
        self.served()
        mode = "sed -n s/^mode=//p locks/data\n"
        self.stub("report", "load", more=mode)
        self.assertEqual(self.good("set -e\n" + block), "shared\nexclusive\n")
        self.assertEqual(self.noted(), ["report : locks/data", "load : locks/data"])

    @example("docs/tooz-run.md", "while :; do\n\ttooz-run ")
    def test_run_active_and_standby(self, block):
        """Once more after a loss, and no more after any other end."""
        os.mkdir(self.served()("groups/web"))
        self.stub("server", more='[ $(wc -l < "$EXAMPLES_LOG") != 1 ] || exit 122\n')
        self.assertEqual(self.good(block), "")
        self.assertEqual(self.noted(), [f"server : leaders/web groups/web/{HOST}"] * 2)


if __name__ == "__main__":
    libc = ctypes.CDLL(None, use_errno=True)
    OWN_NAMESPACES = os.geteuid() == 0 and libc.unshare(CLONE_NEWNS | CLONE_NEWUTS) == 0
    if OWN_NAMESPACES:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True, timeout=10)
    lib.main()
