/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target includes. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "coord/base.h"

#include <stdio.h>

/* As libFuzzer calls it. Always returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* As assert, in every build. */
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
