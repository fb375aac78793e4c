# SPDX-License-Identifier: Apache-2.0
"""The content of members: when it is complete, how it is typed, how it reads."""
import errno
import fcntl
import os

import lib

RW = os.O_RDWR | os.O_CREAT
MIB = 1 << 20


class Capabilities:
    large = MIB - 4096  # what a store takes at the least

    def setUp(self):
        super().setUp()
        os.mkdir(self.a("groups/g"))
        self.path = self.a("groups/g/m")

    def joined(self):
        return os.listdir(self.b("groups/g")) == ["m"]

    def shown(self):
        return lib.read(self.b("groups/g/m"))

    def round_trip(self, data, shown=None):
        lib.write(self.path, data)
        self.assertEqual(self.shown(), data if shown is None else shown)
        self.assertEqual(lib.read(self.path), data if shown is None else shown)

    def test_text_is_kept_byte_for_byte(self):
        for text in (b"plain", b"line\n", b"two\nlines\n", b" \n", b"5", b"5\n", b'"quoted"',
                     b"true\n", b"null", "käse ☃\n".encode(), b"{not json", b"[1,]\n",
                     b"{'single': 1}", b"[NaN]", b"a\0b", b"data:;base64,AAAA"):
            with self.subTest(text=text):
                self.round_trip(text)

    def test_binary_is_kept_byte_for_byte(self):
        for data in (b"\xff\x00\x01", bytes(range(256)), b"\xed\xa0\x80", b"{\xff}"):
            with self.subTest(data=data):
                self.round_trip(data)

    def test_json_is_shown_compact(self):
        for text, shown in (
                (b'{"weight":2}\n', b'{"weight":2}\n'),
                (b'{ "a" : [ 1 , 2.5 , "x" , null , true ] }', b'{"a":[1,2.5,"x",null,true]}\n'),
                (b"[1, 2]\n", b"[1,2]\n"), (b"{}", b"{}\n"), (b"[]\n", b"[]\n"),
                (b'{"big":18446744073709551615,"low":-9223372036854775808}',
                 b'{"big":18446744073709551615,"low":-9223372036854775808}\n'),
                ('{"ü":"☃"}'.encode(), '{"ü":"☃"}\n'.encode()),
                (b'{"u":"\\u00fc"}', '{"u":"ü"}\n'.encode()),
                (b'{"path":"/usr/bin"}', b'{"path":"/usr/bin"}\n'),
                (b'  {"a":1}  \n\n', b'{"a":1}\n')):
            with self.subTest(text=text):
                self.round_trip(text, shown)

    def test_json_over_several_writes(self):
        fd = self.open(self.path)
        for part in (b'{"a"', b":[1,", b'2],"b":"}'):
            os.write(fd, part)
            self.assertFalse(self.joined(), part)
        os.write(fd, b'"}')
        self.assertEqual(self.shown(), b'{"a":[1,2],"b":"}"}\n')

    def test_white_space_after_json_is_ignored(self):
        fd = self.open(self.path)
        os.write(fd, b'{"a":1}')
        before = os.stat(self.path).st_mtime_ns
        os.write(fd, b"\n")
        os.write(fd, b" \t\n")
        self.assertEqual(self.shown(), b'{"a":1}\n')
        self.assertEqual(os.stat(self.path).st_mtime_ns, before)

    def test_of_several_values_in_one_write_the_last_stays(self):
        for text, shown in ((b'{}\n{"a":1}', b'{"a":1}\n'), (b'{}[1]{"b":2}\n\n', b'{"b":2}\n'),
                            (b'{"a":1} text\n', b"text\n"), (b'{"a":1}\n{"b":', b'{"a":1}\n'),
                            (b'{"a":1}5', b"5")):
            with self.subTest(text=text):
                fd = self.open(self.path)
                os.write(fd, text)
                self.assertEqual(self.shown(), shown)
        os.write(fd, b"6")
        self.assertEqual(self.shown(), b"56")

    def test_a_value_begun_behind_another_is_finished_later(self):
        fd = self.open(self.path)
        os.write(fd, b'{"a":1}\n{"b":')
        self.assertEqual(self.shown(), b'{"a":1}\n')
        os.write(fd, b"2}\n")
        self.assertEqual(self.shown(), b'{"b":2}\n')
        os.write(fd, b'[1]{"c"')
        self.assertEqual(self.shown(), b"[1]\n")
        os.close(fd)
        self.assertEqual(self.shown(), b'{"c"')

    def test_an_open_does_not_fail_because_the_member_left_meanwhile(self):
        """The LOOKUP found it, and it left before the OPEN: opening it anew joins again."""
        holder = self.open(self.path)
        fcntl.flock(holder, fcntl.LOCK_EX)
        found = os.open(self.path, os.O_PATH)
        self.addCleanup(os.close, found)
        os.close(holder)
        lib.wait_until(lambda: not self.joined(), "the leave")
        fd = self.open(f"/proc/self/fd/{found}", os.O_RDWR)
        os.write(fd, b"again")
        self.assertEqual(self.shown(), b"again")
        os.close(fd)

    def test_anything_else_after_json_begins_a_new_value(self):
        fd = self.open(self.path)
        os.write(fd, b'{"a":1}\n')
        os.write(fd, b'{"b":')
        self.assertEqual(self.shown(), b'{"a":1}\n')
        os.write(fd, b"2}\n")
        self.assertEqual(self.shown(), b'{"b":2}\n')
        os.write(fd, b"text")
        self.assertEqual(self.shown(), b"text")

    def test_unfinished_json_at_the_last_close_is_text(self):
        lib.write(self.path, b'{"a":[1')
        lib.wait_until(self.joined, "the join")
        self.assertEqual(self.shown(), b'{"a":[1')

    def test_unfinished_json_at_fsync_is_text(self):
        fd = self.open(self.path)
        os.write(fd, b"[1,")
        self.assertFalse(self.joined())
        os.fsync(fd)
        self.assertEqual(self.shown(), b"[1,")

    def test_unfinished_json_at_a_flush_is_text(self):
        fd = self.open(self.path)
        copy = os.dup(fd)
        os.write(fd, b"[1,")
        self.assertFalse(self.joined())
        os.close(copy)
        self.assertEqual(self.shown(), b"[1,")

    def test_a_flush_before_the_first_write_joins_nothing(self):
        fd = self.open(self.path)
        os.close(os.dup(fd))
        self.assertFalse(self.joined())
        os.write(fd, b"x")
        self.assertTrue(self.joined())

    def test_text_grows_by_writes(self):
        fd = self.open(self.path)
        os.write(fd, b"one\n")
        self.assertEqual(self.shown(), b"one\n")
        os.write(fd, b"two\n")
        self.assertEqual(self.shown(), b"one\ntwo\n")

    def test_offsets_are_ignored(self):
        fd = self.open(self.path)
        os.pwrite(fd, b"one", 100)
        self.assertEqual(self.shown(), b"one")
        os.pwrite(fd, b"two", 0)
        self.assertEqual(self.shown(), b"onetwo")

    def test_append_is_overwrite(self):
        self.assertEqual(lib.sh('echo one >"$1"; echo two >>"$1"', self.path).returncode, 0)
        self.assertEqual(self.shown(), b"two\n")

    def test_echo_is_one_join(self):
        for text in ('{"weight":2}', "text"):
            done = lib.sh('echo "$2" >"$1"', self.path, text)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(self.shown(), text.encode() + b"\n")
            st = os.stat(self.path)
            self.assertEqual(st.st_ctime_ns, st.st_mtime_ns, "an update came after the join")
            os.unlink(self.path)

    def test_printf_line_by_line(self):
        done = lib.sh(r'''printf '{\n"a": 1,\n"b": 2\n}\n' >"$1"''', self.path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.shown(), b'{"a":1,"b":2}\n')
        st = os.stat(self.path)
        self.assertEqual(st.st_ctime_ns, st.st_mtime_ns, "an update came after the join")
        lib.sh(r'''printf 'l1\nl2\nl3\n' >"$1"''', self.path)
        self.assertEqual(self.shown(), b"l1\nl2\nl3\n")

    def test_a_write_that_failed_is_not_there_when_it_is_made_again(self):
        os.mkdir(self.a("groups/h"))
        for parts, shown in (((b"one ", b"two "), b"one two "),
                             ((b'{"a":1}', b'{"b":2}'), b'{"b":2}\n'),
                             ((b'{"a":1}', b'{"b":2}{"c":'), b'{"b":2}\n')):
            fd = self.open(self.a("groups/h/m"))
            os.write(fd, parts[0])
            os.unlink(self.a("groups/h/m"))
            os.rmdir(self.a("groups/h"))
            self.fails(errno.ENOENT, os.write, fd, parts[1])
            os.mkdir(self.a("groups/h"))
            os.write(fd, parts[1])
            self.assertEqual(lib.read(self.b("groups/h/m")), shown)
            os.close(fd)

    def test_programs_write_it(self):
        for script, shown in (('cat <<E >"$1"\n{"a":\n1}\nE', b'{"a":1}\n'),
                              ('echo text | dd of="$1" status=none', b"text\n"),
                              ('echo tee | tee "$1" >/dev/null', b"tee\n"),
                              ('{ echo a; echo b; } >"$1"', b"a\nb\n")):
            with self.subTest(script=script):
                done = lib.sh(script, self.path)
                self.assertEqual(done.returncode, 0, done.stderr)
                lib.wait_until(self.joined)
                self.assertEqual(self.shown(), shown)

    def test_cp(self):
        source = os.path.join(lib.WORK, "source")
        lib.write(source, b'{"a": 1}\n')
        done = lib.sh('cp "$1" "$2"', source, self.path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.shown(), b'{"a":1}\n')

    def test_truncation_alone_is_an_update_to_nothing(self):
        lib.write(self.path, b"x")
        self.assertEqual(lib.sh(': >"$1"', self.path).returncode, 0)
        self.assertEqual(lib.read(self.path), b"")
        lib.write(self.path, b"x")
        self.assertEqual(lib.sh('truncate -s 0 "$1"', self.path).returncode, 0)
        self.assertEqual(lib.read(self.path), b"")
        self.assertEqual(os.listdir(self.b("groups/g")), ["m"])

    def test_truncation_shows_at_the_last_close_only(self):
        lib.write(self.path, b"old")
        fd = os.open(self.path, os.O_WRONLY | os.O_TRUNC)
        self.assertEqual(self.shown(), b"old")
        os.write(fd, b"new")
        self.assertEqual(self.shown(), b"new")
        os.close(fd)
        self.assertEqual(self.shown(), b"new")

    def test_truncation_of_a_handle_begins_anew(self):
        fd = self.open(self.path)
        os.write(fd, b"first")
        os.ftruncate(fd, 0)
        os.write(fd, b"second")
        self.assertEqual(self.shown(), b"second")

    def test_large(self):
        for size in (70000, self.large):
            lib.write(self.path, b"x" * size)
            self.assertEqual(self.shown(), b"x" * size)
            self.assertEqual(os.stat(self.path).st_size, size)

    def test_too_large(self):
        fd = self.open(self.path)
        data = b"x" * (2 * MIB)

        def write_all():
            done = 0
            while done < len(data):
                done += os.write(fd, data[done:])
        self.fails(errno.EFBIG, write_all)

    def test_too_large_json(self):
        fd = self.open(self.path)
        part = b'"' + b"x" * 65530 + b'",'

        def write_all():
            os.write(fd, b"[")
            for _ in range(32):
                os.write(fd, part)
        self.fails(errno.EFBIG, write_all)
        self.assertFalse(self.joined())

    def test_refusal_is_not_followed_by_a_join(self):
        fd = os.open(self.path, RW)
        try:
            for _ in range(3):
                os.write(fd, b"[" + b" " * (MIB // 2))
        except OSError:
            pass
        os.close(fd)
        lib.read(self.a(".tooz/state"))
        self.assertFalse(self.joined())

    def test_deep_nesting(self):
        for depth in (10, 10000):
            try:
                lib.write(self.path, b"[" * depth + b"]" * depth)
            except OSError as error:
                self.assertIn(error.errno, (errno.EINVAL, errno.EFBIG))
        lib.write(self.path, b"alive")
        self.assertEqual(self.shown(), b"alive")

    def test_size_agrees_with_content(self):
        for data in (b"x", b'{"a": 1}', b"", b"\xff" * 100):
            lib.write(self.path, data)
            for path in (self.path, self.b("groups/g/m")):
                out = lib.sh('stat -c %s "$1"; wc -c <"$1"; cat "$1" | wc -c', path).stdout
                self.assertEqual(len(set(out.split())), 1, (data, out))

    def test_reading_the_writing_handle(self):
        done = lib.sh('exec 9<>"$1"; echo one >&9; cat "$1"; echo two >&9; cat "$1"', self.path)
        self.assertEqual(done.stdout, "one\none\ntwo\n", done.stderr)


class CapabilitiesMemory(Capabilities, lib.Memory):
    pass


class CapabilitiesFile(Capabilities, lib.File):
    pass


class CapabilitiesRedis(Capabilities, lib.Redis):
    pass


class CapabilitiesZooKeeper(Capabilities, lib.ZooKeeper):
    large = 1000000


if __name__ == "__main__":
    lib.main()
