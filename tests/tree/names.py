# SPDX-License-Identifier: Apache-2.0
"""Names: the encoding is a bijection, and everything else is refused."""
import errno
import fcntl
import os

import lib
from lib import EX


def encode(name):
    out = b""
    for i, byte in enumerate(name):
        if byte in b"/%" or byte < 0x20 or byte == 0x7f or (byte == 0x2e and i == 0):
            out += b"%%%02X" % byte
        else:
            out += bytes([byte])
    return out


NAMES = [b"plain", b"a b", b"a/b", b"100%", b".hidden", b"..", b".", b"a.b", b"tab\there", b"new\nline",
         b"\x01", b"del\x7f", "käse".encode(), b"\xff\xfe", b"%41", b"-rf", b"*", b"a\\b", b'"q"',
         b"...", b"/", b"a%2Fb", b"~", b"\xc2\x80"]
WRONG = [b"%2f", b"%41", b".swp", b".", b"..x", b"a%", b"a%2", b"%zz", b"%2E%2e", b"x%2E", b"%7f",
         b"%00x%0", b"a\tb", b"%20", b"del\x7f", b"%C3%A4", b".x%2E", b"100%"]
WRONG.remove(b".")


class Names:
    def below(self, mount, folder):
        return os.fsencode(mount(folder))

    def test_locks(self):
        here, there = self.below(self.a, "locks"), self.below(self.b, "locks")
        for name in NAMES:
            fcntl.flock(self.open(here + b"/" + encode(name)), EX)
        self.assertEqual(sorted(os.listdir(there)), sorted(encode(x) for x in NAMES))
        for name in NAMES:
            self.assertIn(b"mode=exclusive", lib.read(there + b"/" + encode(name)))

    def test_groups_and_members(self):
        here, there = self.below(self.a, "groups"), self.below(self.b, "groups")
        for name in NAMES:
            os.mkdir(here + b"/" + encode(name))
            lib.write(here + b"/" + encode(name) + b"/" + encode(name), name)
        self.assertEqual(sorted(os.listdir(there)), sorted(encode(x) for x in NAMES))
        for name in NAMES:
            folder = there + b"/" + encode(name)
            self.assertEqual(os.listdir(folder), [encode(name)])
            self.assertEqual(lib.read(folder + b"/" + encode(name)), name)

    def test_other_spellings_do_not_exist(self):
        os.mkdir(self.a("groups/g"))
        for folder in ("locks", "leaders", "groups", "groups/g"):
            for name in WRONG:
                path = self.below(self.a, folder) + b"/" + name
                self.fails(errno.ENOENT, os.stat, path)

    def test_other_spellings_cannot_be_created(self):
        os.mkdir(self.a("groups/g"))
        flags = os.O_RDWR | os.O_CREAT
        for name in WRONG:
            with self.subTest(name=name):
                for folder in ("locks", "leaders", "groups/g"):
                    path = self.below(self.a, folder) + b"/" + name
                    self.fails(errno.EINVAL, os.open, path, flags)
                    self.fails(errno.EINVAL, os.open, path, flags | os.O_EXCL)
                self.fails(errno.EINVAL, os.mkdir, self.below(self.a, "groups") + b"/" + name)
        self.assertEqual(os.listdir(self.a("locks")), [])
        self.assertEqual(os.listdir(self.a("groups/g")), [])

    def test_long(self):
        os.mkdir(self.a("groups/g"))
        for folder in ("locks", "groups/g"):
            self.fails(errno.ENAMETOOLONG, os.open, self.a(folder, "x" * 256),
                       os.O_RDWR | os.O_CREAT)
            self.fails((errno.ENAMETOOLONG, errno.ENOENT), os.stat, self.a(folder, "x" * 256))
        self.fails(errno.ENAMETOOLONG, os.mkdir, self.a("groups", "x" * 256))
        os.mkdir(self.a("groups", "x" * 200))
        lib.write(self.a("groups", "x" * 200, "y" * 200), b"z")
        fcntl.flock(self.open(self.a("locks", "x" * 200)), EX)
        self.assertEqual(os.listdir(self.b("locks")), ["x" * 200])

    def test_the_longest(self):
        """255 bytes go, or are refused for what they are."""
        try:
            fcntl.flock(self.open(self.a("locks", "x" * 255)), EX)
        except OSError as error:
            self.assertEqual(error.errno, errno.ENAMETOOLONG)

    def test_names_in_contents_are_encoded(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/%2Ea%2Fb"), b"")
        done = lib.sh('exec 9<>"$1"; echo %2Ea%2Fb >&9 && flock 9 && cat "$2"',
                      self.a("leaders/g"), self.b("leaders/g"))
        self.assertEqual(done.stdout, "%2Ea%2Fb\n", done.stderr)


class NamesMemory(Names, lib.Memory):
    pass


class NamesFile(Names, lib.File):
    def test_reserved(self):
        for name in ("groups", "tmp", "%2Edriver_lock", "%2Etoozfs", "%2E", "%2E%2E", "a%2F%2E%2E%2Fb",
                     "%2E%2E%2Fb", "groups%2Fg"):
            with self.subTest(name=name):
                self.fails(errno.EINVAL, os.open, self.a("locks", name), os.O_RDWR | os.O_CREAT)
                self.fails(errno.ENOENT, os.stat, self.a("locks", name))

    def test_locks(self):
        """A lock is a file of its name there, so some names cannot be."""
        here, there = self.below(self.a, "locks"), self.below(self.b, "locks")
        taken = []
        for name in NAMES:
            try:
                fcntl.flock(self.open(here + b"/" + encode(name)), EX)
                taken.append(encode(name))
            except OSError as error:
                self.assertEqual(error.errno, errno.EINVAL, name)
                self.assertTrue(b"/" in name or name.startswith(b"."), name)
        self.assertEqual(sorted(os.listdir(there)), sorted(taken))


class OwnId(lib.Case):
    def test_member_id_is_encoded(self):
        tree = self.tree(member="a/b.c%")
        os.mkdir(tree("groups/g"))
        fcntl.flock(self.open(tree("locks/l")), EX)
        self.assertEqual(lib.fields(lib.read(tree("locks/l")))["owner"], "a%2Fb.c%25")
        fcntl.flock(self.open(tree("leaders/g")), EX)
        self.assertEqual(lib.read(tree("leaders/g")), b"a%2Fb.c%25\n")


if __name__ == "__main__":
    lib.main()
