/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plain main for a fuzz target: gives it every file of the directories that are its arguments. Each
 * input is in memory of just its size, so that a sanitizer sees one byte too many.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static void replay(int dir, const char *name)
{
	struct stat st;
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && fstat(fd, &st) == 0);
	_cleanup_free_ uint8_t *data = malloc((size_t)st.st_size);
	must(data || st.st_size == 0);
	must(read(fd, data, (size_t)st.st_size) == st.st_size);
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
	size_t files = 0;
	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);
		must(dir);
		for (struct dirent *entry; (entry = readdir(dir));) {
			if (entry->d_name[0] == '.')
				continue;
			replay(dirfd(dir), entry->d_name);
			files++;
		}
		closedir(dir);
	}
	printf("%zu inputs\n", files);
	return files ? 0 : 1;
}
