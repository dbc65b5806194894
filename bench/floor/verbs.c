/*
 * RDMA over a reliable connection: write with immediate data into registered memory of the other side, as praas sends
 * calls. The first active port of the first device is used, with its last routed address, unless PRAAS_IB_DEVICE,
 * PRAAS_IB_PORT or PRAAS_IB_GID_INDEX say otherwise. Messages are copied into and out of registered memory, but for
 * small ones, which the device takes inline.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "floor.h"
#include "options.h"

#if __has_include(<infiniband/verbs.h>)

#include <dlfcn.h>
#include <endian.h>
#include <infiniband/verbs.h>

enum { kInlineBytes = 256, kReceives = 4 };

/* What a side has to know of the other. */
struct endpoint {
  uint32_t queue_pair;
  uint32_t first_packet;
  uint32_t key;
  uint16_t lid;
  uint64_t address;
  union ibv_gid gid;
};

static int meeting[2]; /* a socket for each side, where they tell each other */
static size_t message_bytes, outgoing_bytes, incoming_bytes;
static const struct options* options;
static bool sleeping; /* until there is a completion; else it is polled for */
static unsigned char *inbox, *outbox;
static struct ibv_context* context;
static struct ibv_qp* pair;
static struct ibv_comp_channel* channel;
static struct ibv_cq* completions;
static struct ibv_mr* region;
static struct endpoint peer_endpoint;
static uint32_t inline_bytes;

/* The header's names may be macros that call the library this program is not linked with. */
static void* library;
static void* symbol(const char* name) {
  void* const found = dlsym(library, name);
  errno = 0;
  if (found == NULL) fail("libibverbs.so.1 has no %s", name);
  return found;
}
#define CALL(type, name) ((type)symbol(#name))

typedef struct ibv_device** get_list(int*);
typedef struct ibv_context* open_device(struct ibv_device*);
typedef int query_device(struct ibv_context*, struct ibv_device_attr*);
typedef int query_port(struct ibv_context*, uint8_t, struct ibv_port_attr*);
typedef int query_gid(struct ibv_context*, uint8_t, int, union ibv_gid*);
typedef struct ibv_pd* alloc_pd(struct ibv_context*);
typedef struct ibv_mr* reg_mr(struct ibv_pd*, void*, size_t, int);
typedef struct ibv_comp_channel* create_comp_channel(struct ibv_context*);
typedef int get_cq_event(struct ibv_comp_channel*, struct ibv_cq**, void**);
typedef void ack_cq_events(struct ibv_cq*, unsigned);
typedef struct ibv_cq* create_cq(struct ibv_context*, int, void*, struct ibv_comp_channel*, int);
typedef struct ibv_qp* create_qp(struct ibv_pd*, struct ibv_qp_init_attr*);
typedef int modify_qp(struct ibv_qp*, struct ibv_qp_attr*, int);

static struct ibv_port_attr port;
static uint8_t port_number, gid_index;
static get_cq_event* take_event;
static ack_cq_events* acknowledge_events;

/* A number that the environment chooses, or -1. */
static int chosen_number(const char* name) {
  const char* const text = getenv(name);
  uint64_t number;
  if (text == NULL || *text == '\0') return -1;
  errno = 0;
  if (!read_number(text, 0, 255, &number)) fail("%s is \"%s\"; expected 0 ... 255", name, text);
  return (int)number;
}

static struct ibv_device* choose_device(struct ibv_device** devices, int count) {
  const char* const name = getenv("PRAAS_IB_DEVICE");
  if (name == NULL || *name == '\0') return devices[0];
  for (int i = 0; i < count; ++i) {
    if (strcmp(devices[i]->name, name) == 0) return devices[i];
  }
  errno = 0;
  fail("there is no RDMA device %s, which PRAAS_IB_DEVICE names", name);
}

static void open_port(void) {
  library = dlopen("libibverbs.so.1", RTLD_NOW);
  errno = 0;
  if (library == NULL) fail("there is no libibverbs.so.1: %s", dlerror());
  int count = 0;
  struct ibv_device** const devices = CALL(get_list*, ibv_get_device_list)(&count);
  errno = 0;
  if (devices == NULL || count == 0) fail("there is no RDMA device");
  context = CALL(open_device*, ibv_open_device)(choose_device(devices, count));
  if (context == NULL) fail("ibv_open_device");
  struct ibv_device_attr attributes;
  if (CALL(query_device*, ibv_query_device)(context, &attributes) != 0) fail("ibv_query_device");
  const int chosen = chosen_number("PRAAS_IB_PORT");
  for (port_number = 1; port_number <= attributes.phys_port_cnt; ++port_number) {
    if (chosen > 0 && port_number != chosen) continue;
    memset(&port, 0, sizeof port);
    if (CALL(query_port*, ibv_query_port)(context, port_number, &port) == 0 && port.state == IBV_PORT_ACTIVE) return;
  }
  errno = 0;
  fail("no port of the RDMA device is active");
}

static union ibv_gid choose_gid(void) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  static const uint8_t none[16];
  union ibv_gid chosen = {0};
  const int wanted = chosen_number("PRAAS_IB_GID_INDEX");
  for (int index = 0; index < port.gid_tbl_len && index < 255; ++index) {
    union ibv_gid gid;
    if (CALL(query_gid*, ibv_query_gid)(context, port_number, index, &gid) != 0) continue;
    if (memcmp(gid.raw, none, sizeof none) == 0 || (wanted >= 0 && index != wanted)) continue;
    const bool routed = memcmp(gid.raw, mapped, sizeof mapped) == 0;
    if (memcmp(chosen.raw, none, sizeof none) != 0 && !routed) continue;
    chosen = gid;
    gid_index = (uint8_t)index;
  }
  return chosen;
}

static void modify(struct ibv_qp_attr* attributes, int mask) {
  errno = CALL(modify_qp*, ibv_modify_qp)(pair, attributes, mask);
  if (errno != 0) fail("ibv_modify_qp");
}

static void make_pair(struct endpoint* mine) {
  struct ibv_pd* const domain = CALL(alloc_pd*, ibv_alloc_pd)(context);
  if (domain == NULL) fail("ibv_alloc_pd");
  inbox = allocate(2 * message_bytes);
  outbox = inbox + message_bytes;
  region =
      CALL(reg_mr*, ibv_reg_mr)(domain, inbox, 2 * message_bytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
  if (region == NULL) fail("ibv_reg_mr of %zu bytes", 2 * message_bytes);
  if (sleeping) {
    channel = CALL(create_comp_channel*, ibv_create_comp_channel)(context);
    if (channel == NULL) fail("ibv_create_comp_channel");
    take_event = CALL(get_cq_event*, ibv_get_cq_event);
    acknowledge_events = CALL(ack_cq_events*, ibv_ack_cq_events);
  }
  completions = CALL(create_cq*, ibv_create_cq)(context, 2 * kReceives, NULL, channel, 0);
  if (completions == NULL) fail("ibv_create_cq");
  struct ibv_qp_init_attr wanted = {
      .send_cq = completions,
      .recv_cq = completions,
      .qp_type = IBV_QPT_RC,
      .cap = {.max_send_wr = kReceives,
              .max_recv_wr = kReceives,
              .max_send_sge = 1,
              .max_recv_sge = 1,
              .max_inline_data = kInlineBytes},
  };
  pair = CALL(create_qp*, ibv_create_qp)(domain, &wanted);
  if (pair == NULL) fail("ibv_create_qp");
  inline_bytes = wanted.cap.max_inline_data;
  struct ibv_qp_attr attributes = {
      .qp_state = IBV_QPS_INIT, .port_num = port_number, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
  modify(&attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  *mine = (struct endpoint){.queue_pair = pair->qp_num,
                            .first_packet = 1000,
                            .key = region->rkey,
                            .lid = port.lid,
                            .address = (uintptr_t)inbox,
                            .gid = choose_gid()};
}

static void connect_pair(const struct endpoint* mine) {
  struct ibv_qp_attr attributes = {
      .qp_state = IBV_QPS_RTR,
      .path_mtu = port.active_mtu,
      .dest_qp_num = peer_endpoint.queue_pair,
      .rq_psn = peer_endpoint.first_packet,
      .max_dest_rd_atomic = 1,
      .min_rnr_timer = 12,
      .ah_attr = {.dlid = peer_endpoint.lid, .port_num = port_number},
  };
  if (port.link_layer == IBV_LINK_LAYER_ETHERNET) {
    attributes.ah_attr.is_global = 1;
    attributes.ah_attr.grh =
        (struct ibv_global_route){.dgid = peer_endpoint.gid, .sgid_index = gid_index, .hop_limit = 64};
  }
  modify(&attributes, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  attributes = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                    .sq_psn = mine->first_packet,
                                    .timeout = 14,
                                    .retry_cnt = 7,
                                    .rnr_retry = 7,
                                    .max_rd_atomic = 1};
  modify(&attributes,
         IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

static void post_receive(void) {
  struct ibv_recv_wr work = {0};
  struct ibv_recv_wr* refused;
  errno = ibv_post_recv(pair, &work, &refused);
  if (errno != 0) fail("ibv_post_recv");
}

static void open_meeting(const struct options* chosen, bool sleeps) {
  options = chosen;
  message_bytes = options->bytes;
  sleeping = sleeps;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, meeting) != 0) fail("socketpair");
}

/* Devices do not survive a fork, so each side opens its own. */
static void become(enum side side) {
  struct endpoint mine;
  outgoing_bytes = bytes_from(options, side);
  incoming_bytes = bytes_from(options, other_side(side));
  open_port();
  make_pair(&mine);
  if (write(meeting[side], &mine, sizeof mine) != (ssize_t)sizeof mine) fail("telling the other side");
  if (recv(meeting[side], &peer_endpoint, sizeof peer_endpoint, MSG_WAITALL) != (ssize_t)sizeof peer_endpoint) {
    fail("hearing of the other side");
  }
  for (int i = 0; i < kReceives; ++i) post_receive();
  connect_pair(&mine);
  /* Nobody sends before the other is connected. */
  char ready = 1;
  if (write(meeting[side], &ready, 1) != 1 || recv(meeting[side], &ready, 1, MSG_WAITALL) != 1) fail("meeting");
}

static void await_event(void) {
  struct ibv_cq* queue;
  void* user;
  if (take_event(channel, &queue, &user) != 0) fail("ibv_get_cq_event");
  acknowledge_events(queue, 1);
}

/* Until a message has come. Completions that say that one was sent pass by. */
static void await_message(void) {
  unsigned steps = 0;
  bool armed = false;
  for (;;) {
    struct ibv_wc completion;
    const int count = ibv_poll_cq(completions, 1, &completion);
    errno = 0;
    if (count < 0) fail("ibv_poll_cq");
    if (count == 0 && !sleeping) {
      spin_memory(&steps);
      continue;
    }
    if (count == 0) {
      /* Looked at once more when it is armed: what came before that wakes nobody. Only messages do, not what was sent.
       */
      if (armed) await_event();
      if (!armed && (errno = ibv_req_notify_cq(completions, 1)) != 0) fail("ibv_req_notify_cq");
      armed = !armed;
      continue;
    }
    if (completion.status != IBV_WC_SUCCESS) fail("RDMA failed with status %d", completion.status);
    if (completion.opcode == IBV_WC_RECV_RDMA_WITH_IMM) return;
  }
}

static void send_message(const void* message) {
  const bool small = outgoing_bytes <= inline_bytes;
  if (!small) memcpy(outbox, message, outgoing_bytes);
  struct ibv_sge part = {
      .addr = (uintptr_t)(small ? message : outbox), .length = (uint32_t)outgoing_bytes, .lkey = region->lkey};
  struct ibv_send_wr work = {
      .sg_list = &part,
      .num_sge = 1,
      .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
      /* Each is signalled: the queue would fill up with what was sent. */
      .send_flags = IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | (small ? IBV_SEND_INLINE : 0),
      .wr.rdma = {.remote_addr = peer_endpoint.address, .rkey = peer_endpoint.key},
  };
  struct ibv_send_wr* refused;
  errno = ibv_post_send(pair, &work, &refused);
  if (errno != 0) fail("ibv_post_send");
}

static void receive_message(void* message) {
  await_message();
  post_receive();
  memcpy(message, inbox, incoming_bytes);
}

#else

static void open_meeting(const struct options* chosen, bool sleeps) {
  (void)chosen;
  (void)sleeps;
  errno = 0;
  fail("built without the headers of libibverbs (Debian: libibverbs-dev)");
}
static void become(enum side side) { (void)side; }
static void send_message(const void* message) { (void)message; }
static void receive_message(void* message) { (void)message; }

#endif

static void open_polling(const struct options* chosen) { open_meeting(chosen, false); }

static void open_sleeping(const struct options* chosen) { open_meeting(chosen, true); }

#define VERBS_FLOOR(floor_name, floor_summary, floor_open)                                                         \
  {                                                                                                                \
    .name = floor_name, .summary = floor_summary, .max_bytes = 256u << 20, .max_in_flight = 1, .open = floor_open, \
    .become = become, .send = send_message, .receive = receive_message                                             \
  }

const struct floor verbs_floor = VERBS_FLOOR("verbs", "RDMA writes with immediate data, polling", open_polling);
const struct floor verbs_sleep_floor =
    VERBS_FLOOR("verbs-sleep", "RDMA writes with immediate data, sleeping", open_sleeping);
