/*
 * The native functions of the campaign: what app.ts has in TypeScript, with "n_" in front, and one of rFaaS' calling
 * convention. Layouts of orders, answers and journal are in order.ts and journal.ts.
 */
#include <fcntl.h>
#include <praas/praas.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ORDER_BYTES = 64, ANSWER_BYTES = 32, LOCK_WRITE = 1 << 16 };
enum {
  EVENT_BEGIN = 1,
  EVENT_END = 2,
  EVENT_LOCKED = 3,
  EVENT_UNLOCKING = 4,
  EVENT_PUT,
  EVENT_REFUSED,
  EVENT_TOOK,
  EVENT_EMPTY,
  EVENT_FORKED,
  EVENT_FAILED
};
enum { GET = 1, SET, APPEND, PATCH, DELETE, INCREMENT, STAT, PUBLISH, UNPUBLISH, COPY, LIST };
/* Longer than anything comes to rest: forks.ts */
enum { CHILD_SECONDS = 200 };
enum { DONE = 0, ABSENT = 1, MISMATCH = 2, NO_MEMORY = 3 };

typedef struct order {
  uint64_t id;
  uint32_t operation, argument;
  uint64_t version;
  uint32_t flags, key_bytes, data_bytes;
  char key[256];
  const char* data;
} order;

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int journal = -1;

__attribute__((constructor)) static void open_journal(void) {
  const char* path = getenv("FAULTS_JOURNAL");
  journal = open(path == NULL ? "/dev/null" : path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void note_of(uint64_t id, uint16_t event, uint16_t argument, uint64_t subject) {
  struct {
    uint64_t id;
    uint16_t event, argument;
    uint32_t pid;
    uint64_t at_ns, subject;
  } entry = {id, event, argument, (uint32_t)getpid(), now_ns(), subject};
  if (write(journal, &entry, sizeof entry) != sizeof entry) abort();
}

static void note(uint64_t id, uint16_t event, uint16_t argument) { note_of(id, event, argument, 0); }

static void parse(const char* input, order* given) {
  memset(given, 0, sizeof *given);
  memcpy(&given->id, input, 8);
  memcpy(&given->operation, input + 8, 4);
  memcpy(&given->argument, input + 12, 4);
  memcpy(&given->version, input + 16, 8);
  memcpy(&given->flags, input + 24, 4);
  memcpy(&given->key_bytes, input + 28, 4);
  memcpy(&given->data_bytes, input + 32, 4);
  memcpy(given->key, input + ORDER_BYTES, given->key_bytes);
  given->data = input + ORDER_BYTES + given->key_bytes;
}

static order begin(praas_context* context) {
  size_t bytes;
  order given;
  parse(praas_input(context, &bytes), &given);
  note(given.id, EVENT_BEGIN, 0);
  return given;
}

static int give_back(praas_context* context, const order* given) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  note(given->id, EVENT_END, 0);
  return praas_return(context, input, bytes);
}

PRAAS_FUNCTION(n_echo) {
  order given = begin(context);
  return give_back(context, &given);
}

PRAAS_FUNCTION_WITH(n_echoAgain, PRAAS_IDEMPOTENT) {
  order given = begin(context);
  return give_back(context, &given);
}

PRAAS_FUNCTION(n_copy) {
  order given = begin(context);
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  void* output = praas_output(context, bytes);
  if (output == NULL) return PRAAS_FAILED;
  memcpy(output, input, bytes);
  note(given.id, EVENT_END, 0);
  return PRAAS_OK;
}

PRAAS_FUNCTION(n_nothing) {
  size_t bytes;
  const void* input = praas_input(context, &bytes);
  return praas_return(context, input, bytes);
}

PRAAS_FUNCTION(n_sleep) {
  order given = begin(context);
  const struct timespec millisecond = {0, 1000000};
  for (uint32_t i = 0; i < given.argument && !praas_cancelled(context); ++i) nanosleep(&millisecond, NULL);
  return give_back(context, &given);
}

PRAAS_FUNCTION(n_spin) {
  order given = begin(context);
  const uint64_t end = now_ns() + given.argument * 1000000ull;
  while (now_ns() < end) {
  }
  return give_back(context, &given);
}

PRAAS_FUNCTION(n_fail) {
  order given = begin(context);
  return praas_fail(context, "as call %llu was told to", (unsigned long long)given.id);
}

PRAAS_FUNCTION(n_die) {
  order given = begin(context);
  if (given.argument == 0) _exit(3);
  raise(SIGKILL);
  return PRAAS_FAILED;
}

/* Leaves a child behind that has all that its worker has. */
PRAAS_FUNCTION(n_fork) {
  order given = begin(context);
  const pid_t child = fork();
  if (child == 0) {
    sleep(CHILD_SECONDS);
    _exit(0);
  }
  if (child > 0) note_of(given.id, EVENT_FORKED, 0, (uint64_t)child);
  return give_back(context, &given);
}

/* Calls `key` with the next id. */
PRAAS_FUNCTION(n_nest) {
  order given = begin(context);
  size_t bytes = ORDER_BYTES + given.data_bytes;
  char* input = praas_buffer(context, bytes);
  praas_reply reply;
  uint64_t id = given.id + 1;
  if (input == NULL) return PRAAS_FAILED;
  memset(input, 0, ORDER_BYTES);
  memcpy(input, &id, 8);
  memcpy(input + 32, &given.data_bytes, 4);
  memcpy(input + ORDER_BYTES, given.data, given.data_bytes);
  /* In one step or in two. */
  uint64_t call;
  int status = given.id % 2 == 0 ? praas_invoke(context, given.key, input, bytes, 0, &reply)
                                 : praas_invoke_begin(context, given.key, input, bytes, 0, &call);
  if (status == PRAAS_OK && given.id % 2 != 0) status = praas_invoke_wait(context, call, &reply);
  if (status != PRAAS_OK) return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  note(given.id, EVENT_END, 0);
  return praas_return(context, reply.data, reply.bytes);
}

PRAAS_FUNCTION(n_lock) {
  order given = begin(context);
  const uint32_t mode = given.argument >= LOCK_WRITE ? PRAAS_LOCK_WRITE : PRAAS_LOCK_READ;
  const uint16_t which = (uint16_t)(given.operation + (mode == PRAAS_LOCK_WRITE ? 256 : 0));
  const struct timespec hold = {0, (long)(given.argument % LOCK_WRITE) * 1000000};
  uint64_t lock;
  int status = praas_state_lock(context, given.key, mode, 0, &lock);
  if (status != PRAAS_OK) return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  note(given.id, EVENT_LOCKED, which);
  nanosleep(&hold, NULL);
  note(given.id, EVENT_UNLOCKING, which);
  status = praas_state_unlock(context, lock);
  if (status != PRAAS_OK) return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  return give_back(context, &given);
}

static int answer(praas_context* context, const order* given, uint32_t status, uint32_t existed, uint64_t version,
                  uint64_t number, const void* data, size_t bytes) {
  char* output = praas_output(context, ANSWER_BYTES + bytes);
  if (output == NULL) return PRAAS_FAILED;
  memset(output, 0, ANSWER_BYTES);
  memcpy(output, &status, 4);
  memcpy(output + 4, &existed, 4);
  memcpy(output + 8, &version, 8);
  memcpy(output + 16, &number, 8);
  if (bytes > 0) memcpy(output + ANSWER_BYTES, data, bytes);
  note(given->id, EVENT_END, 0);
  return PRAAS_OK;
}

typedef struct listing {
  const order* given;
  praas_key_info found;
} listing;

static int look(void* argument, const praas_key_info* info) {
  listing* listed = argument;
  if (strcmp(info->key, listed->given->key) != 0) return 0;
  listed->found = *info;
  return 1;
}

PRAAS_FUNCTION(n_state) {
  order given = begin(context);
  const void* data = NULL;
  size_t bytes = 0, capacity = 0;
  uint64_t version = 0, number = 0;
  praas_key_info info;
  void* array;
  listing listed = {&given, {0}};
  int status = PRAAS_ERR_UNSUPPORTED;
  switch (given.operation) {
    case GET:
      status = praas_state_view(context, given.key, &data, &bytes, &version);
      break;
    case SET:
      status = given.flags == 0
                   ? praas_state_set(context, given.key, given.data, given.data_bytes, &version)
                   : praas_state_set_if(context, given.key, given.data, given.data_bytes, given.version, &version);
      break;
    case APPEND:
      status = praas_state_append(context, given.key, given.data, given.data_bytes, &version);
      break;
    case PATCH:
      status = praas_state_patch(context, given.key, given.argument, given.data, given.data_bytes, &version);
      break;
    case DELETE:
      status = praas_state_delete(context, given.key);
      if (status == PRAAS_ERR_STATE_NOT_FOUND) return answer(context, &given, DONE, 0, 0, 0, NULL, 0);
      break;
    case INCREMENT:
      status = praas_state_array(context, given.key, PRAAS_INT64, 1, &array);
      if (status == PRAAS_OK) {
        number = __atomic_add_fetch((uint64_t*)array, given.argument, __ATOMIC_SEQ_CST);
      }
      break;
    case STAT:
      status = praas_state_stat(context, given.key, &info);
      if (status == PRAAS_OK) {
        version = info.version;
        number = info.bytes;
      }
      break;
    case COPY: {
      void* const buffer = praas_buffer(context, given.argument);
      status = buffer == NULL ? PRAAS_ERR_STATE_MEMORY
                              : praas_state_get(context, given.key, buffer, given.argument, &bytes, &version);
      data = buffer;
      break;
    }
    case LIST:
      status = praas_state_keys(context, given.key, look, &listed);
      if (status == PRAAS_OK && listed.found.version == 0) status = PRAAS_ERR_STATE_NOT_FOUND;
      version = listed.found.version;
      number = listed.found.bytes;
      break;
    case PUBLISH:
      status = praas_state_publish(context, given.key, given.argument, &capacity);
      number = capacity;
      break;
    case UNPUBLISH:
      status = praas_state_unpublish(context, given.key);
      if (status == PRAAS_ERR_STATE_NOT_FOUND) return answer(context, &given, DONE, 0, 0, 0, NULL, 0);
      break;
  }
  switch (status) {
    case PRAAS_OK:
      return answer(context, &given, DONE, 1, version, number, data, bytes);
    case PRAAS_ERR_STATE_NOT_FOUND:
      return answer(context, &given, ABSENT, 0, 0, 0, NULL, 0);
    case PRAAS_ERR_STATE_VERSION:
      return answer(context, &given, MISMATCH, 1, 0, 0, NULL, 0);
    case PRAAS_ERR_STATE_MEMORY:
      return answer(context, &given, NO_MEMORY, 0, 0, 0, NULL, 0);
    default:
      return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  }
}

/* The id of a message, which is one record. */
static uint64_t record_of(const void* message) {
  uint64_t record;
  memcpy(&record, (const char*)message + 8, 8);
  return record;
}

PRAAS_FUNCTION(n_put) {
  order given = begin(context);
  const uint64_t record = record_of(given.data);
  const int status = praas_put(context, PRAAS_SELF, given.key, given.data, given.data_bytes);
  if (status == PRAAS_OK) note_of(given.id, EVENT_PUT, 0, record);
  if (status == PRAAS_ERR_STATE_MEMORY) note_of(given.id, EVENT_REFUSED, 0, record);
  if (status != PRAAS_OK) return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  note(given.id, EVENT_END, 0);
  return PRAAS_OK;
}

/* Waits `argument` milliseconds for a message; without one the result is empty. */
PRAAS_FUNCTION(n_get) {
  order given = begin(context);
  praas_reply message;
  const int status = praas_get(context, PRAAS_ANY, given.key, given.argument * 1000000ull + 1, &message);
  if (status == PRAAS_OK) {
    note_of(given.id, EVENT_TOOK, 0, record_of(message.data));
  } else if (strncmp(praas_error_message(context), "no message", 10) == 0) {
    note(given.id, EVENT_EMPTY, 0);
  } else {
    note(given.id, EVENT_FAILED, 0);
    return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  }
  note(given.id, EVENT_END, 0);
  return praas_return(context, message.data, message.bytes);
}

/* All messages that nobody has taken. */
PRAAS_FUNCTION(n_drain) {
  size_t bytes, filled = 0;
  order given;
  parse(praas_input(context, &bytes), &given);
  char* output = praas_output(context, given.argument);
  if (output == NULL) return PRAAS_FAILED;
  praas_reply message;
  int status;
  while ((status = praas_get(context, PRAAS_ANY, given.key, 1, &message)) == PRAAS_OK) {
    if (filled + message.bytes > given.argument) return praas_fail(context, "there are too many messages");
    memcpy(output + filled, message.data, message.bytes);
    filled += message.bytes;
    praas_release(context, &message);
  }
  if (strncmp(praas_error_message(context), "no message", 10) != 0) {
    return praas_fail(context, "%s: %s", praas_status_name(status), praas_error_message(context));
  }
  return praas_output_truncate(context, filled);
}

PRAAS_EXPORT uint32_t r_echo(void* args, uint32_t size, void* res) {
  order given;
  parse(args, &given);
  note(given.id, EVENT_BEGIN, 0);
  memcpy(res, args, size);
  note(given.id, EVENT_END, 0);
  return size;
}
