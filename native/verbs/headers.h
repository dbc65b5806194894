#pragma once

/// Whether this is built with the headers of libibverbs (Debian: libibverbs-dev). The library itself is looked for at
/// run time only, so that one build works with it and without it.
#if __has_include(<infiniband/verbs.h>)
#include <infiniband/verbs.h>
#define PRAAS_VERBS_HEADERS 1
#else
#define PRAAS_VERBS_HEADERS 0
#endif
