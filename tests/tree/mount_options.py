# SPDX-License-Identifier: Apache-2.0
"""The command line of mount.tooz: bad input of every sort, exit codes, credentials, what ps(1) shows."""
import os
import subprocess

import lib

OK, USAGE, FAILED = 0, 1, 32
MEMORY = "memory://options"


class Options(lib.Case):
    def setUp(self):
        self.dir = os.path.join(lib.WORK, "dir")
        os.makedirs(self.dir, exist_ok=True)

    def run_program(self, *args, **keywords):
        done = subprocess.run([lib.TOOZFS, *args], capture_output=True, text=True, timeout=30 * lib.SLOW,
                              check=False, **keywords)
        self.assertFalse(lib.mounted(self.dir), f"{args} mounted something")
        return done

    def expect(self, code, words, *args):
        """The command ends with the code, and each word is in what it says on standard error."""
        done = self.run_program(*args)
        self.assertEqual(done.returncode, code, f"{args}: {done.stderr}")
        for word in words:
            self.assertIn(word, done.stderr, args)
        if code == OK:
            self.assertEqual(done.stderr, "", args)
        return done

    def fake(self, options, code=OK, *words):
        return self.expect(code, words, "-f", MEMORY, self.dir, "-o", options)

    def test_help_version_drivers(self):
        self.assertIn("usage: mount.tooz", self.run_program("--help").stdout)
        self.assertRegex(self.run_program("--version").stdout, r"^toozfs \d")
        drivers = self.run_program("--drivers").stdout
        for word in ("memory:", "file:", "every driver:", "timeout=SECONDS [10]"):
            self.assertIn(word, drivers)

    def test_quickstart_help(self):
        top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        for flag, code in (("--help", 0), ("-h", 0), ("--bogus", 1)):
            done = subprocess.run([os.path.join(top, "mount-helpers/quickstart"), flag], text=True,
                                  capture_output=True, timeout=30, check=False)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn("usage:", done.stdout + done.stderr)

    def test_usage(self):
        self.expect(USAGE, ["URL and DIR"])
        self.expect(USAGE, ["URL and DIR"], MEMORY)
        self.expect(USAGE, ["too many"], MEMORY, self.dir, "third")
        self.expect(USAGE, ["URL is empty"], "", self.dir)
        self.expect(USAGE, ["DIR is empty"], MEMORY, "")
        self.expect(USAGE, [], "--bogus", MEMORY, self.dir)
        self.expect(USAGE, [], "-o")
        self.expect(USAGE, ["--wait"], "--wait")

    def test_flags(self):
        self.expect(OK, [], "-fnv", MEMORY, self.dir, "-t", "fuse.tooz")
        self.expect(OK, [], MEMORY, self.dir, "-f", "-o", "rw", "-o", "nosuid")

    def test_url(self):
        self.expect(USAGE, ["nosuch"], "-f", "nosuch://host", self.dir)
        self.expect(USAGE, [], "-f", "not a url", self.dir)
        self.expect(USAGE, [], "-f", "memory://host:99999999", self.dir)
        self.expect(USAGE, ["bogus", "knows"], "-f", MEMORY + "?bogus=1", self.dir)
        self.expect(USAGE, [], "-f", "../../evil://x", self.dir)
        self.expect(USAGE, ["three slashes"], "-f", "file://host//x", self.dir)
        self.expect(OK, [], "-f", "file:///nonexistent/x", self.dir)

    def test_mount_point(self):
        self.expect(FAILED, ["does not exist"], MEMORY, os.path.join(self.dir, "none"))
        path = os.path.join(lib.WORK, "file")
        lib.write(path, b"")
        self.expect(FAILED, ["Not a directory"], MEMORY, path)

    def test_remount(self):
        self.expect(FAILED, ["remount"], MEMORY, self.dir, "-o", "remount,ro")

    def test_unknown(self):
        self.fake("bogus=1", USAGE, "bogus", "timeout")
        self.fake("bogus", USAGE, "bogus", "on_loss, require, credentials")
        done = self.run_program("-sf", MEMORY, self.dir, "-o", "bogus=1,alsobogus")
        self.assertEqual(done.returncode, OK, done.stderr)
        self.assertIn("bogus is unknown", done.stderr)

    def test_values(self):
        for option in ("member=", "member", "uid=", "umask", "credentials=", "require", "timeout",
                       "timeout=", "allow_other=1", "foreground=yes", "ro=0"):
            self.fake(option, USAGE, option.split("=")[0])
        for option in ("umask=8", "umask=1777", "umask=-1", "umask=0x7", "uid=nosuchuser", "uid=-1",
                       "uid=4294967295", "gid=nosuchgroup", "gid=99999999999999999999", "partitions=0",
                       "partitions=x", "partitions=99999999", "on_loss=stop", "on_loss=9", "timeout=x",
                       "timeout=-1", "timeout=1e999", "timeout=0", "require=fast"):
            self.fake(option, USAGE, option.split("=")[0])

    def test_good_values(self):
        for option in ("umask=077", "uid=0", "uid=root", "gid=root", "partitions=64", "on_loss=none",
                       "on_loss=term", "on_loss=HUP", "on_loss=kill", "timeout=5", "timeout=2.5",
                       "require=distributed_across_threads", "member=a b", 'member="a,b"', "member=a\\,b",
                       ",,", "lock_timeout=3"):
            self.fake(option)

    def test_generic(self):
        self.fake("defaults,rw,ro,noauto,auto,nofail,_netdev,user,users,user=me,owner,group,nosuid,nodev,"
                  "noexec,exec,suid,dev,noatime,relatime,nodiratime,lazytime,sync,async,dirsync,"
                  "x-systemd.automount,x-systemd.idle-timeout=5min,comment=a b,default_permissions,"
                  "fsname=x,subtype=y,max_read=65536,auto_unmount,helper=x,uhelper=y,"
                  "symfollow,nosymfollow")
        self.fake("allow_root", USAGE, "allow_other")

    def test_require(self):
        self.fake("require=linearizable:DISTRIBUTED-ACROSS-HOSTS", FAILED, "DISTRIBUTED_ACROSS_HOSTS")

    def test_many_options(self):
        self.fake(",".join(f"o{i}=1" for i in range(300)), USAGE, "more than")

    def credentials(self, content, mode=0o600):
        path = os.path.join(lib.WORK, "credentials")
        lib.write(path, content)
        os.chmod(path, mode)
        return "credentials=" + path

    def test_credentials(self):
        self.fake(self.credentials(b"# comment\n\nusername=u\npassword=p=x, y\n"))
        self.fake(self.credentials(b"username=u\r\npassword=p"))
        self.fake(self.credentials(b"password=p\nsentinel_password=hunter2\n"), USAGE,
                  "unknown option 'sentinel_password'; the memory driver")
        for mode in (0o640, 0o604, 0o620, 0o602, 0o610):
            self.fake(self.credentials(b"username=u\n", mode), USAGE, "mode", "chmod 600")
        done = self.fake(self.credentials(b"username=u\nhunter2\n"), USAGE, "line 2")
        self.assertNotIn("hunter2", done.stderr)
        self.fake(self.credentials(b""), USAGE, "neither")
        self.fake(self.credentials(b"x" * (65 << 10)), USAGE, "too long")
        self.fake("credentials=/nonexistent", USAGE, "No such file")
        self.fake("credentials=/dev/null", USAGE, "not a file")
        fifo = os.path.join(lib.WORK, "fifo")
        os.mkfifo(fifo, 0o600)
        self.fake("credentials=" + fifo, USAGE, "not a file")
        path = self.credentials(b"username=u\n")
        os.chown(path.split("=")[1], 1, 1)
        self.fake(path, USAGE, "another user")

    def test_no_password_is_said(self):
        secret = "hunter2"
        for url in (f"nosuch://u:{secret}@host", f"memory://u:{secret}@host?bogus=1",
                    f"memory://u:{secret}@host:port/"):
            done = self.run_program("-f", url, self.dir)
            self.assertEqual(done.returncode, USAGE)
            self.assertNotIn(secret, done.stderr)

    def test_no_password_is_shown(self):
        tree = lib.Tree("memory://u:hunter2@secret/x", member="m")
        self.addCleanup(tree.stop)
        tree.wait_ready()
        shown = lib.read(f"/proc/{tree.pid}/cmdline")
        shown += lib.read("/proc/self/mountinfo") + tree.read_log().encode()
        for name in ("url", "session", "metrics", "driver"):
            if os.path.exists(tree(".tooz", name)):
                shown += lib.read(tree(".tooz", name))
        self.assertNotIn(b"hunter2", shown)
        self.assertIn(b"u@secret", lib.read(tree(".tooz/url")))


if __name__ == "__main__":
    lib.main()
