#include "verbs/context.h"

#if PRAAS_VERBS_HEADERS

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "verbs/memory_budget.h"
#include "verbs/patience.h"

namespace praas::verbs {
namespace {

/// The part of the attributes that libraries of every version fill in.
Result<ibv_port_attr> PortOf(const Library& library, ibv_context* context, uint8_t number) {
  ibv_port_attr port{};
  const int error = library.query_port(context, number, reinterpret_cast<struct _compat_ibv_port_attr*>(&port));
  if (error != 0) return Status::System("ibv_query_port " + std::to_string(number), error);
  return port;
}

/// An IPv4 address in the notation of IPv6: one that routers know, as that of RoCE v2 should be.
bool IsRouted(const ibv_gid& gid) noexcept {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kMapped, sizeof kMapped) == 0;
}
bool IsSet(const ibv_gid& gid) noexcept {
  return std::any_of(std::begin(gid.raw), std::end(gid.raw), [](uint8_t byte) { return byte != 0; });
}

/// Sets `number` to what variable `name` holds, if it is set.
template <typename Number>
Status ReadNumber(const char* name, int low, int high, Number& number) {
  const char* const found = std::getenv(name);
  if (found == nullptr || *found == '\0') return Status::Ok();
  const std::string_view text(found);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    return {Code::kArgumentInvalid, std::string(name) + " is \"" + found + "\"; it must be a number from " +
                                        std::to_string(low) + " to " + std::to_string(high)};
  }
  number = static_cast<Number>(value);
  return Status::Ok();
}

}  // namespace

Result<Selection> Selection::FromEnvironment() {
  Selection selection;
  if (const char* const device = std::getenv("PRAAS_IB_DEVICE")) selection.device = device;
  for (const Status& status :
       {ReadNumber("PRAAS_IB_PORT", 1, 255, selection.port),
        ReadNumber("PRAAS_IB_GID_INDEX", 0, 255, selection.gid_index),
        ReadNumber("PRAAS_IB_TRAFFIC_CLASS", 0, 255, selection.traffic_class), MemoryBudget::CheckEnvironment()}) {
    if (!status.ok()) return status;
  }
  return selection;
}

Result<std::unique_ptr<Context>> Context::Open(const Selection& selection, uint64_t deadline_ns) {
  if (const Result<const Library*> loaded = Library::Load(); !loaded.ok()) return loaded.status();
  return AnswerInTime<Result<std::unique_ptr<Context>>>([selection] { return OpenNow(selection); }, deadline_ns);
}

Result<std::unique_ptr<Context>> Context::OpenNow(const Selection& selection) {
  const Result<const Library*> loaded = Library::Load();
  const Library& library = **loaded;
  int count = 0;
  const std::unique_ptr<ibv_device*, void (*)(ibv_device**)> list(library.get_device_list(&count),
                                                                  library.free_device_list);
  if (!list || count == 0) {
    return Status(Code::kUnsupported, "this machine has no RDMA device; see `praas doctor`");
  }
  Status why(Code::kUnsupported, "there is no RDMA device " + selection.device + "; see `praas doctor`");
  std::unique_ptr<Context> found;
  for (int i = 0; i < count && !found; ++i) {
    ibv_device* const device = list.get()[i];
    const std::string name = library.get_device_name(device);
    if (!selection.device.empty() && selection.device != name) continue;
    errno = 0;
    ibv_context* const context = library.open_device(device);
    if (context == nullptr) {
      why = Status::System("RDMA device " + name + " cannot be opened (see `praas doctor`)", errno != 0 ? errno : EIO);
      continue;
    }
    std::unique_ptr<Context> opened(new Context(library, context, name));
    if (Status status = opened->ChoosePort(selection); !status.ok()) {
      why = std::move(status);
      continue;
    }
    found = std::move(opened);
  }
  if (!found) return why;
  const int flags = ::fcntl(found->context_->async_fd, F_GETFL);
  if (flags < 0 || ::fcntl(found->context_->async_fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return Status::System("fcntl of the events of RDMA device " + found->device_);
  }
  return found;
}

Context::~Context() { library_.close_device(context_); }

Status Context::ChoosePort(const Selection& selection) {
  ibv_device_attr attributes{};
  if (const int error = library_.query_device(context_, &attributes); error != 0) {
    return Status::System("ibv_query_device " + device_, error);
  }
  if (selection.port > attributes.phys_port_cnt) {
    return {Code::kUnsupported, "RDMA device " + device_ + " has " + std::to_string(attributes.phys_port_cnt) +
                                    " ports and no port " + std::to_string(selection.port)};
  }
  Status why(Code::kUnsupported, "RDMA device " + device_ + " has no port");
  for (uint8_t number = 1; number <= attributes.phys_port_cnt; ++number) {
    if (selection.port != 0 && selection.port != number) continue;
    const Result<ibv_port_attr> port = PortOf(library_, context_, number);
    if (!port.ok()) return port.status();
    if (port->state != IBV_PORT_ACTIVE) {
      why = Status(Code::kUnsupported, "port " + std::to_string(number) + " of RDMA device " + device_ +
                                           " is not active; see `praas doctor`");
      continue;
    }
    port_ = number;
    address_.lid = port->lid;
    address_.ethernet = port->link_layer == IBV_LINK_LAYER_ETHERNET;
    address_.mtu_bytes = 128u << port->active_mtu;
    max_message_bytes_ = std::max(port->max_msg_sz, address_.mtu_bytes);
    traffic_class_ = selection.traffic_class;
    return ChooseGid(selection, port->gid_tbl_len);
  }
  return why;
}

Status Context::ChooseGid(const Selection& selection, int gids) {
  int chosen = -1;
  ibv_gid chosen_gid{};
  for (int index = 0; index < std::min(gids, 255); ++index) {
    if (selection.gid_index >= 0 && selection.gid_index != index) continue;
    ibv_gid gid{};
    if (library_.query_gid(context_, port_, index, &gid) != 0 || !IsSet(gid)) continue;
    // Several entries of one address differ in their type; of these RoCE v2 comes last.
    const bool better = chosen < 0 || (address_.ethernet && IsRouted(gid));
    if (!better) continue;
    chosen = index;
    chosen_gid = gid;
  }
  if (chosen < 0) {
    return {Code::kUnsupported, "port " + std::to_string(port_) + " of RDMA device " + device_ + " has no address" +
                                    (selection.gid_index >= 0 ? " " + std::to_string(selection.gid_index) : "") +
                                    "; see `praas doctor`"};
  }
  gid_index_ = static_cast<uint8_t>(chosen);
  std::copy(std::begin(chosen_gid.raw), std::end(chosen_gid.raw), address_.gid.begin());
  return Status::Ok();
}

std::string Context::Place() const {
  const Result<ibv_port_attr> port = PortOf(library_, context_, port_);
  const bool down = port.ok() && port->state != IBV_PORT_ACTIVE;
  return "RDMA device " + device_ + ", port " + std::to_string(port_) + (down ? " (down)" : "");
}

Context::Event Context::TakeEvent() {
  ibv_async_event raw{};
  if (library_.get_async_event(context_, &raw) != 0) return {};
  Event event;
  event.type = raw.event_type;
  switch (raw.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
      event.fatal = true;
      [[fallthrough]];
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      event.kind = Event::Kind::kQueuePair;
      event.queue_pair = raw.element.qp->qp_num;
      break;
    case IBV_EVENT_PORT_ERR:
      event.fatal = raw.element.port_num == port_;
      [[fallthrough]];
    case IBV_EVENT_PORT_ACTIVE:
    case IBV_EVENT_LID_CHANGE:
    case IBV_EVENT_PKEY_CHANGE:
    case IBV_EVENT_GID_CHANGE:
    case IBV_EVENT_SM_CHANGE:
    case IBV_EVENT_CLIENT_REREGISTER:
      event.kind = Event::Kind::kPort;
      break;
    case IBV_EVENT_DEVICE_FATAL:
      event.kind = Event::Kind::kDevice;
      event.fatal = true;
      break;
    default:
      event.kind = Event::Kind::kOther;
      event.fatal = raw.event_type == IBV_EVENT_CQ_ERR || raw.event_type == IBV_EVENT_SRQ_ERR;
      break;
  }
  library_.ack_async_event(&raw);
  return event;
}

Status StatusOf(const Context& context, const Context::Event& event) {
  const char* const what = event.kind == Context::Event::Kind::kDevice ? "the device has failed"
                           : event.kind == Context::Event::Kind::kPort ? "the port has gone down"
                                                                       : "a queue has failed";
  return {Code::kConnectionLost, context.Place() + ": " + what + " (event " + std::to_string(event.type) + ")"};
}

}  // namespace praas::verbs

#endif
