#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Modules are found in the build tree that the program lies in, and nowhere else; one of another
# version, with another driver in it, or that is no module, is refused with a text.
# Usage: modules_test.sh TOOL GOOD OLD WRONG
set -eu

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for name in redis etcd mysql consul; do
	mkdir -p "$tree/drivers/$name"
done
mkdir "$tree/meson-private" "$tree/bin"
touch "$tree/meson-private/coredata.dat"
cp "$1" "$tree/bin/tool"
cp "$2" "$tree/drivers/redis/redis.so"
cp "$3" "$tree/drivers/etcd/etcd.so"
cp "$4" "$tree/drivers/mysql/mysql.so"
echo garbage > "$tree/drivers/consul/consul.so"

out=$("$tree/bin/tool" redis etcd mysql consul kazoo nosuch)
echo "$out"
expect() {
	echo "$out" | grep -q -- "$1" || { echo "missing: $1"; exit 1; }
}
expect '^redis: 0 redis$'
expect '^etcd: -8 .*another version'
expect '^mysql: -8 .*another driver'
expect '^consul: -8 cannot load the consul driver'
expect "^kazoo: -2 .*zookeeper.*$tree/drivers/zookeeper/zookeeper.so.*package toozfs-zookeeper"
expect "^nosuch: -2 no driver for 'nosuch'; there are: .*redis.*; not installed: .*kazoo"
expect '^each: redis$'
[ "$(echo "$out" | grep -c '^each: \(etcd\|mysql\|consul\)$')" = 0 ]

# Outside of a build tree the very same program looks elsewhere.
rm "$tree/meson-private/coredata.dat"
out=$("$tree/bin/tool" redis)
echo "$out" | grep "$tree/drivers" && exit 1
exit 0
