#include "verbs/survey.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>

#include "base/json_writer.h"
#include "verbs/context.h"
#include "verbs/library.h"
#include "verbs/patience.h"

namespace praas::verbs {

#if PRAAS_VERBS_HEADERS

namespace {

std::string StateName(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "down";
    case IBV_PORT_INIT:
      return "init";
    case IBV_PORT_ARMED:
      return "armed";
    case IBV_PORT_ACTIVE:
      return "active";
    case IBV_PORT_ACTIVE_DEFER:
      return "active, deferred";
    default:
      return "unknown";
  }
}

Gid::Type TypeOf(uint32_t type) noexcept {
  switch (type) {
    case IBV_GID_TYPE_ROCE_V1:
      return Gid::Type::kRoceV1;
    case IBV_GID_TYPE_ROCE_V2:
      return Gid::Type::kRoceV2;
    default:
      return Gid::Type::kInfiniBand;
  }
}

Gid GidOf(const ibv_gid_entry& entry) {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(AF_INET6, entry.gid.raw, text, sizeof text);
  return {.index = entry.gid_index, .address = text, .type = TypeOf(entry.gid_type)};
}

std::vector<Gid> GidsOf(const Library& library, ibv_context* context, uint32_t port, size_t most) {
  std::vector<Gid> gids;
  if (library.query_gid_table == nullptr) return gids;
  std::vector<ibv_gid_entry> entries(most);
  const ssize_t count = library.query_gid_table(context, entries.data(), most, 0, sizeof(ibv_gid_entry));
  for (ssize_t i = 0; i < count; ++i) {
    if (entries[static_cast<size_t>(i)].port_num == port) gids.push_back(GidOf(entries[static_cast<size_t>(i)]));
  }
  return gids;
}

Port PortOf(uint32_t number, const ibv_port_attr& attributes) {
  Port port;
  port.number = number;
  port.state = StateName(attributes.state);
  port.active = attributes.state == IBV_PORT_ACTIVE;
  port.ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
  port.mtu_bytes = 128u << attributes.active_mtu;
  port.lid = attributes.lid;
  return port;
}

Status CannotOpen(const std::string& name, int error) {
  std::string remedy;
  if (error == EACCES || error == EPERM) {
    remedy =
        "; this user needs to read and write /dev/infiniband/uverbs* (udev rules of rdma-core, or a group such as "
        "rdma)";
  } else if (error == ENOENT || error == ENODEV || error == ENXIO) {
    remedy = "; /dev/infiniband is not complete: load ib_uverbs, and give a container --device=/dev/infiniband";
  }
  return {Code::kSystem,
          "RDMA device " + name + " cannot be opened: " + std::generic_category().message(error) + remedy, error};
}

Device DeviceOf(const Library& library, ibv_device* listed) {
  Device device;
  device.name = library.get_device_name(listed);
  errno = 0;
  const std::unique_ptr<ibv_context, int (*)(ibv_context*)> context(library.open_device(listed), library.close_device);
  if (!context) {
    device.status = CannotOpen(device.name, errno != 0 ? errno : EIO);
    return device;
  }
  ibv_device_attr attributes{};
  if (const int error = library.query_device(context.get(), &attributes); error != 0) {
    device.status = CannotOpen(device.name, error);
    return device;
  }
  device.max_queue_pairs = static_cast<uint32_t>(std::max(attributes.max_qp, 0));
  device.max_memory_regions = static_cast<uint32_t>(std::max(attributes.max_mr, 0));
  size_t most_gids = 0;
  for (uint32_t number = 1; number <= attributes.phys_port_cnt; ++number) {
    // Newer libraries write a longer structure than older ones: zeroed, and large enough for both.
    ibv_port_attr port{};
    if (library.query_port(context.get(), static_cast<uint8_t>(number),
                           reinterpret_cast<struct _compat_ibv_port_attr*>(&port)) != 0) {
      continue;
    }
    device.ports.push_back(PortOf(number, port));
    most_gids += static_cast<size_t>(std::max(port.gid_tbl_len, 0));
  }
  for (Port& port : device.ports) port.gids = GidsOf(library, context.get(), port.number, most_gids);
  return device;
}

Result<std::vector<Device>> SurveyNow(const Library& library) {
  int count = 0;
  ibv_device** const list = library.get_device_list(&count);
  // A kernel without RDMA is a machine without devices.
  if (list == nullptr) return std::vector<Device>{};
  std::vector<Device> devices;
  devices.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) devices.push_back(DeviceOf(library, list[i]));
  library.free_device_list(list);
  return devices;
}

}  // namespace

Result<std::vector<Device>> Survey() {
  const Result<const Library*> library = Library::Load();
  if (!library.ok()) return library.status();
  return AnswerInTime<Result<std::vector<Device>>>([library = *library] { return SurveyNow(*library); });
}

Status Usable() {
  const Result<Selection> selection = Selection::FromEnvironment();
  return selection.ok() ? Context::Open(*selection).status() : selection.status();
}

#else

Result<std::vector<Device>> Survey() {
  return Status(Code::kUnsupported,
                "this build has no RDMA: it was made without the headers of libibverbs (Debian: libibverbs-dev)");
}

Status Usable() { return Survey().status(); }

#endif

namespace {

const char* NameOf(Gid::Type type) noexcept {
  switch (type) {
    case Gid::Type::kRoceV1:
      return "RoCE v1";
    case Gid::Type::kRoceV2:
      return "RoCE v2";
    case Gid::Type::kInfiniBand:
      break;
  }
  return "InfiniBand";
}

void Write(JsonWriter& json, const Port& port) {
  json.BeginObject();
  json.Number("number", port.number);
  json.Text("state", port.state);
  json.Bool("active", port.active);
  json.Bool("ethernet", port.ethernet);
  json.Number("mtuBytes", port.mtu_bytes);
  json.Number("lid", port.lid);
  json.BeginArray("gids");
  for (const Gid& gid : port.gids) {
    json.BeginObject();
    json.Number("index", gid.index);
    json.Text("address", gid.address);
    json.Text("type", NameOf(gid.type));
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
}

}  // namespace

std::string SurveyJson() {
  const Result<std::vector<Device>> devices = Survey();
  JsonWriter json;
  json.BeginObject();
  if (!devices.ok()) {
    json.Text("error", devices.status().message());
    json.EndObject();
    return json.text();
  }
  json.BeginArray("devices");
  for (const Device& device : *devices) {
    json.BeginObject();
    json.Text("name", device.name);
    if (!device.status.ok()) json.Text("error", device.status.message());
    json.Number("maxQueuePairs", device.max_queue_pairs);
    json.Number("maxMemoryRegions", device.max_memory_regions);
    json.BeginArray("ports");
    for (const Port& port : device.ports) Write(json, port);
    json.EndArray();
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return json.text();
}

}  // namespace praas::verbs
