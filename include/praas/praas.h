/**
 * praas.h: functions for praas processes in C, and in every language that speaks C.
 *
 *   #include <praas/praas.h>
 *
 *   PRAAS_FUNCTION(reverse) {
 *     size_t bytes;
 *     const char* input = praas_input(context, &bytes);
 *     char* output = praas_output(context, bytes);
 *     if (output == NULL) return PRAAS_FAILED;
 *     for (size_t i = 0; i < bytes; ++i) output[i] = input[bytes - 1 - i];
 *     return PRAAS_OK;
 *   }
 *
 *   cc -shared -fPIC -o libreverse.so reverse.c && praas run ./libreverse.so
 *
 * The library is loaded by praas-worker, which defines everything declared here: there is nothing to link with, and a
 * library must not be linked with -z defs. All calls are for the thread that runs the function, while it runs.
 *
 * Functions that return `int` give PRAAS_OK or a status; praas_error_message() then says what failed, why, and what to
 * do. Keys and names are 1 … 255 bytes of UTF-8. Times are nanoseconds; a timeout of 0 means "until the deadline of the
 * invocation", and no wait is ever longer than that.
 */
#ifndef PRAAS_PRAAS_H
#define PRAAS_PRAAS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
/* Also where -fvisibility=hidden is the default: what is declared here is defined elsewhere. */
#pragma GCC visibility push(default)

/** Rises when a declaration changes its meaning. A library of another version is refused when it is deployed. */
#define PRAAS_API_VERSION 1u

#define PRAAS_EXPORT __attribute__((visibility("default")))

/** One invocation. Valid until the function returns. */
typedef struct praas_context praas_context;

/** What functions return: PRAAS_OK, or anything else for failure. The caller then gets ERR_FUNCTION_THREW. */
typedef int (*praas_function)(praas_context* context);

/** The numbers are those of the error codes in docs/errors.md, and never change their meaning. */
enum praas_status {
  PRAAS_OK = 0,
  PRAAS_FAILED = 1,     /* ERR_INTERNAL; as a function's result: failed, see praas_fail */
  PRAAS_ERR_SYSTEM = 2, /* the operating system refused; the message names call and errno */
  PRAAS_ERR_ARGUMENT_INVALID = 3,
  PRAAS_ERR_UNSUPPORTED = 4,
  PRAAS_ERR_PROCESS_DRAINING = 23,
  PRAAS_ERR_FUNCTION_UNKNOWN = 30,
  PRAAS_ERR_FUNCTION_THREW = 31, /* the message is JSON {name, message, stack, code?} */
  PRAAS_ERR_FUNCTION_RESULT = 32,
  PRAAS_ERR_NAME_INVALID = 33,
  PRAAS_ERR_INVOCATION_TIMEOUT = 40,
  PRAAS_ERR_INVOCATION_CANCELLED = 41,
  PRAAS_ERR_INVOCATION_DEADLOCK = 42,
  PRAAS_ERR_WORKER_CRASHED = 50, /* the message is JSON {signal, exitCode, stderr} */
  PRAAS_ERR_PAYLOAD_TOO_LARGE = 60,
  PRAAS_ERR_BACKPRESSURE = 61,
  PRAAS_ERR_STATE_NOT_FOUND = 70,
  PRAAS_ERR_STATE_VERSION = 71,
  PRAAS_ERR_STATE_TYPE = 72,
  PRAAS_ERR_STATE_MEMORY = 73,
  PRAAS_ERR_STATE_CONTENDED = 74,
  PRAAS_ERR_STATE_RANGE = 75,
  PRAAS_ERR_STATE_LOCK_TIMEOUT = 76,
  PRAAS_ERR_STATE_LOCK_LOST = 77,
  PRAAS_ERR_SEGMENT_STUCK = 81
};

/** What the last failed call on this context said; "" when none failed. Valid until the next call on it fails. */
const char* praas_error_message(const praas_context* context);
/** Its status; PRAAS_OK when none failed. For the functions that give memory or NULL. */
int praas_error_status(const praas_context* context);
/** "ERR_STATE_NOT_FOUND" for PRAAS_ERR_STATE_NOT_FOUND; "OK" for PRAAS_OK. Static. */
const char* praas_status_name(int status);

/* --- input and output -----------------------------------------------------------------------------------------------
 */

/** The input, where its sender wrote it or, if small, a copy: read it in place, do not write. NULL when it is empty. */
const void* praas_input(const praas_context* context, size_t* bytes);

/**
 * `bytes` bytes of memory at the result's final place, contents undefined. What they hold when the function returns is
 * the result, without a copy. A second call replaces the first, whose memory is then gone. NULL, and no output any
 * more, when there is no memory, the deadline has passed, or bytes exceeds the process's maxContiguous.
 */
void* praas_output(praas_context* context, size_t bytes);

/** Only the first `bytes` of the last praas_output() are the result. PRAAS_ERR_ARGUMENT_INVALID: it has fewer. */
int praas_output_truncate(praas_context* context, size_t bytes);

/**
 * Makes these bytes the result. Input, or a part of it, is returned as it stands, without a copy; so is a part of the
 * output that starts at its begin. Other memory is copied at once and need not outlive this call.
 */
int praas_return(praas_context* context, const void* data, size_t bytes);

/** Says why the function fails (printf format, at most 4,000 bytes of text). Returns PRAAS_FAILED, for `return`. */
int praas_fail(praas_context* context, const char* format, ...) __attribute__((format(printf, 2, 3)));

/** Memory that is freed when the invocation ends, 64-byte aligned, contents undefined. NULL only when there is none. */
void* praas_buffer(praas_context* context, size_t bytes);

/* --- about the invocation -------------------------------------------------------------------------------------------
 */

const char* praas_process_id(const praas_context* context);
const char* praas_function_name(const praas_context* context);
/** Names this invocation among all that its worker ever runs. */
uint64_t praas_invocation_id(const praas_context* context);
/** 0 for a call of a client, n + 1 for a call made by an invocation of depth n. */
uint32_t praas_invocation_depth(const praas_context* context);
/** Until the deadline; 0 when it has passed. The worker is killed when the function still runs `graceMs` later. */
uint64_t praas_remaining_ns(const praas_context* context);
/** 1 once the caller has given up, has gone, or the deadline has passed: nobody reads the result any more. Cheap. */
int praas_cancelled(const praas_context* context);

/* --- state: shared by all workers of the process, native and TypeScript ---------------------------------------------
 */

/** Element types of shared arrays: those of JavaScript's typed arrays. */
enum praas_element_type {
  PRAAS_INT8 = 1,
  PRAAS_UINT8 = 2,
  PRAAS_UINT8_CLAMPED = 3,
  PRAAS_INT16 = 4,
  PRAAS_UINT16 = 5,
  PRAAS_INT32 = 6,
  PRAAS_UINT32 = 7,
  PRAAS_FLOAT32 = 8,
  PRAAS_FLOAT64 = 9,
  PRAAS_INT64 = 10,
  PRAAS_UINT64 = 11
};

typedef struct praas_key_info {
  const char* key;       /* valid inside the callback, or as long as the argument of praas_state_stat */
  uint32_t element_type; /* 0 for a value, else enum praas_element_type of an array */
  uint64_t bytes;
  uint64_t version;     /* process-wide counter, never reused */
  uint64_t modified_ns; /* since 1970 */
} praas_key_info;

/** The value of `key` in place. Stays valid and unchanged until the invocation ends, even when the key is set anew. */
int praas_state_view(praas_context* context, const char* key, const void** data, size_t* bytes, uint64_t* version);
/**
 * Copies up to `capacity` bytes of the value and says how many it has (`bytes`), whatever the capacity.
 * PRAAS_ERR_STATE_RANGE when it did not fit. `version` may be NULL, here and below.
 */
int praas_state_get(praas_context* context, const char* key, void* buffer, size_t capacity, size_t* bytes,
                    uint64_t* version);
/** Replaces the value as a whole: readers see the old or the new one. */
int praas_state_set(praas_context* context, const char* key, const void* data, size_t bytes, uint64_t* version);
/** The same if the key has version `if_version` (0: does not exist); else PRAAS_ERR_STATE_VERSION. */
int praas_state_set_if(praas_context* context, const char* key, const void* data, size_t bytes, uint64_t if_version,
                       uint64_t* version);
/** Replaces [offset, offset + bytes) of the value, as one step; may extend it. */
int praas_state_patch(praas_context* context, const char* key, size_t offset, const void* data, size_t bytes,
                      uint64_t* version);
/** Adds bytes at the end of the value, as one step; creates it. */
int praas_state_append(praas_context* context, const char* key, const void* data, size_t bytes, uint64_t* version);
/** PRAAS_ERR_STATE_NOT_FOUND when there is none. */
int praas_state_delete(praas_context* context, const char* key);
int praas_state_stat(praas_context* context, const char* key, praas_key_info* info);
/** Calls `visit` for every key that starts with `prefix`, in byte order, until it returns something else than 0. */
int praas_state_keys(praas_context* context, const char* prefix,
                     int (*visit)(void* argument, const praas_key_info* info), void* argument);
/**
 * Publishes a key, which need not exist yet: clients then read its value without a message to this process. Every
 * change is published before it returns. `capacity`: of the largest value that can be read so; 0: the present size.
 * Rounded up; `given` says to what, and may be NULL. PRAAS_ERR_STATE_MEMORY when the memory for published values is
 * used up.
 */
int praas_state_publish(praas_context* context, const char* key, size_t capacity, size_t* given);
/** Ends that; the value stays. PRAAS_ERR_STATE_NOT_FOUND when the key was not published. */
int praas_state_unpublish(praas_context* context, const char* key);
/**
 * The shared array `key` of `count` elements, zeroed when new: the same memory in every worker and in every language,
 * to be changed in place (with atomics, or under a lock). Valid until the invocation ends. PRAAS_ERR_STATE_TYPE or
 * PRAAS_ERR_STATE_RANGE when it exists with another type or size.
 */
int praas_state_array(praas_context* context, const char* key, uint32_t element_type, size_t count, void** data);

enum praas_lock_mode { PRAAS_LOCK_READ = 1, PRAAS_LOCK_WRITE = 2 };
/**
 * A fair reader/writer lock of the process, by name. Waits for `timeout_ns` at most: PRAAS_ERR_STATE_LOCK_TIMEOUT.
 * Released by praas_state_unlock, at the end of the invocation at the latest, and by the death of the worker.
 */
int praas_state_lock(praas_context* context, const char* name, uint32_t mode, uint64_t timeout_ns, uint64_t* lock);
int praas_state_unlock(praas_context* context, uint64_t lock);

/* --- calls to functions of the same process, in any language --------------------------------------------------------
 */

typedef struct praas_reply {
  const void* data; /* in place; valid until praas_release, or until the invocation ends */
  size_t bytes;
  uint64_t call; /* for praas_release */
} praas_reply;

/**
 * Calls a function and waits for its result. While it waits, this worker runs nested calls, this one included, on the
 * same stack: a function that calls functions of its own process needs no second worker. On failure the status is the
 * callee's.
 */
int praas_invoke(praas_context* context, const char* function, const void* input, size_t bytes, uint64_t timeout_ns,
                 praas_reply* reply);
/** The same in two steps, for several calls at a time. The input is copied. */
int praas_invoke_begin(praas_context* context, const char* function, const void* input, size_t bytes,
                       uint64_t timeout_ns, uint64_t* call);
int praas_invoke_wait(praas_context* context, uint64_t call, praas_reply* reply);
/** Frees a reply early. Calls that were begun and never waited for are cancelled when the invocation ends. */
void praas_release(praas_context* context, const praas_reply* reply);

/* --- messages -------------------------------------------------------------------------------------------------------
 */

#define PRAAS_SELF "SELF"
#define PRAAS_ANY "ANY"

/**
 * Puts a message into the mailbox of `process` under `key`. Only PRAAS_SELF and the process's own id are possible so
 * far; others are PRAAS_ERR_UNSUPPORTED.
 */
int praas_put(praas_context* context, const char* process, const char* key, const void* data, size_t bytes);
/**
 * Takes the oldest message of this process's mailbox from `source` under `key`, waiting for `timeout_ns` at most:
 * PRAAS_ERR_INVOCATION_TIMEOUT. `source` is PRAAS_SELF, PRAAS_ANY or the process's own id.
 */
int praas_get(praas_context* context, const char* source, const char* key, uint64_t timeout_ns, praas_reply* message);

/* --- registration ---------------------------------------------------------------------------------------------------
 */

enum praas_function_flags {
  PRAAS_IDEMPOTENT = 1u << 1 /* may be run again when its worker dies */
};

/** How praas-worker finds the functions of a library: by exported symbols praas_function_NAME of this type. */
typedef struct praas_function_info {
  uint32_t api_version;
  uint32_t flags;
  praas_function run;
  const char* name;
} praas_function_info;

#ifdef __cplusplus
#define PRAAS_EXTERN_C extern "C"
#else
#define PRAAS_EXTERN_C extern
#endif

/** Defines and registers a function; its body follows and has a parameter `praas_context* context`. */
#define PRAAS_FUNCTION(name) PRAAS_FUNCTION_WITH(name, 0)
#define PRAAS_FUNCTION_WITH(name, function_flags)                                                                   \
  static int praas_run_##name(praas_context* context);                                                              \
  PRAAS_EXTERN_C PRAAS_EXPORT const praas_function_info praas_function_##name;                                      \
  const praas_function_info praas_function_##name = {PRAAS_API_VERSION, (function_flags), praas_run_##name, #name}; \
  static int praas_run_##name(praas_context* context)

/**
 * Functions of another calling convention: a library that exports this symbol gets (symbol, context) for each of its
 * functions that is not registered by PRAAS_FUNCTION. <praas/process/runtime/context.hpp> defines it for PraaS' C++
 * functions.
 */
typedef int (*praas_adapter)(void* symbol, praas_context* context);
#define PRAAS_ADAPTER_SYMBOL "praas_adapter_v1"

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
