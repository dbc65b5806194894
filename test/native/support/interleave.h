#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

/// A small explicit-state model checker for hand-over protocols: it runs every interleaving of a few threads.
///
/// A *state* is a small copyable struct with everything that matters: the shared words, each thread's program counter
/// and its local variables. It needs `auto operator<=>(const State&) const = default`, because each distinct state is
/// explored once. A *thread* is a function that makes one indivisible step (one atomic access to shared memory) and
/// returns true, or leaves the state as it was and returns false when it cannot move now: blocked, or finished.
///
///   struct S { uint8_t flag, work, pc_a, pc_b, taken; auto operator<=>(const S&) const = default; };
///   Interleave<S> model;
///   model.Add("sender", [](S& s) { switch (s.pc_a) { case 0: s.work = 1; s.pc_a = 1; return true; …  default: return
///   false; } }); model.Add("worker", …, /* die = */ [](S& s) { … }); const auto report = model.Explore(S{}, {.terminal
///   = [](const S& s) { return s.work ? "work was left" : ""; }}); EXPECT_TRUE(report.ok()) << report.Text();
///
/// A *terminal* state is one in which no thread can move; work that is undelivered there is a lost wake-up. A thread
/// that polls for ever hides such a state, so `goal` asks for more: from every reachable state some continuation
/// reaches it. Threads added with a `die` function may be killed between any two of their steps, at most `max_kills` in
/// all; `die` is what the rest of the system gets to see of the death.
///
/// Exploration is breadth first, so the trace of a violation is one of the shortest. Prove that a model can fail:
/// mutate it (leave out the re-check) and expect the violation.
///
/// Plain steps mean sequentially consistent memory. `TsoMemory` below adds store buffers, the one reordering of x86,
/// with which a model also shows what a missing fence does.
namespace praas::testing {

template <typename State>
class Interleave {
 public:
  using Step = std::function<bool(State&)>;
  using Die = std::function<void(State&)>;

  struct Options {
    /// What is wrong with a state in which nobody can move; empty: nothing.
    std::function<std::string(const State&)> terminal = nullptr;
    /// What is wrong with any reachable state; empty: nothing.
    std::function<std::string(const State&)> invariant = nullptr;
    /// Must stay reachable from every reachable state.
    std::function<bool(const State&)> goal = nullptr;
    uint32_t max_kills = 0;
    size_t max_states = 4'000'000;  // beyond it the report says that it is incomplete
  };

  struct Report {
    size_t states = 0;
    size_t transitions = 0;
    size_t terminals = 0;
    bool complete = false;
    std::string violation;           // empty: none found
    std::vector<std::string> trace;  // who stepped, from the initial state to the violation

    [[nodiscard]] bool ok() const { return complete && violation.empty(); }
    [[nodiscard]] std::string Text() const {
      std::string text = complete || !violation.empty() ? violation : "too many states to explore";
      for (const std::string& step : trace) text += "\n  " + step;
      return text + "\n(" + std::to_string(states) + " states, " + std::to_string(transitions) + " transitions, " +
             std::to_string(terminals) + " terminal)";
    }
  };

  Interleave& Add(std::string name, Step step, Die die = nullptr) {
    threads_.push_back({std::move(name), std::move(step), std::move(die)});
    return *this;
  }

  [[nodiscard]] Report Explore(const State& initial, const Options& options) const {
    Report report;
    std::map<Node, size_t> ids;
    std::vector<const Node*> nodes;  // map nodes keep their address
    std::vector<Origin> origins;
    std::vector<std::pair<size_t, size_t>> edges;  // for `goal` only

    auto visit = [&](Node node, size_t from, std::string_view verb, const Thread* thread) {
      const auto [place, is_new] = ids.emplace(std::move(node), nodes.size());
      if (is_new) {
        nodes.push_back(&place->first);
        origins.push_back({from, std::string(verb) + (thread != nullptr ? thread->name : "")});
      }
      if (options.goal != nullptr && thread != nullptr) edges.emplace_back(from, place->second);
    };
    auto fail = [&](size_t id, std::string violation) {
      report.violation = std::move(violation);
      for (; id != 0; id = origins[id].from) report.trace.insert(report.trace.begin(), origins[id].step);
      report.states = nodes.size();
      return report;
    };

    visit({initial, 0, 0}, 0, "", nullptr);
    for (size_t id = 0; id < nodes.size(); ++id) {
      if (nodes.size() > options.max_states) {
        report.states = nodes.size();
        return report;
      }
      const Node& node = *nodes[id];
      if (options.invariant != nullptr) {
        if (std::string wrong = options.invariant(node.state); !wrong.empty()) return fail(id, std::move(wrong));
      }
      bool moved = false;
      for (size_t i = 0; i < threads_.size(); ++i) {
        const Thread& thread = threads_[i];
        if ((node.dead >> i & 1) != 0) continue;
        if (Node next = node; thread.step(next.state)) {
          moved = true;
          ++report.transitions;
          visit(std::move(next), id, "", &thread);
        }
        if (thread.die != nullptr && node.kills < options.max_kills) {
          Node next = node;
          next.dead |= uint64_t{1} << i;
          ++next.kills;
          thread.die(next.state);
          ++report.transitions;
          visit(std::move(next), id, "kill ", &thread);
        }
      }
      if (moved) continue;
      ++report.terminals;
      if (options.terminal != nullptr) {
        if (std::string wrong = options.terminal(node.state); !wrong.empty()) return fail(id, std::move(wrong));
      }
    }
    report.states = nodes.size();
    if (options.goal != nullptr) {
      if (const size_t stuck = FirstWithoutGoal(nodes, edges, options.goal); stuck != nodes.size()) {
        return fail(stuck, "the goal is out of reach from here on");
      }
    }
    report.complete = true;
    return report;
  }

 private:
  struct Thread {
    std::string name;
    Step step;
    Die die;
  };
  struct Node {
    State state;
    uint64_t dead = 0;
    uint32_t kills = 0;
    auto operator<=>(const Node&) const = default;
  };
  struct Origin {
    size_t from;
    std::string step;
  };

  /// The earliest node from which no path leads to a goal; nodes.size() when there is none.
  static size_t FirstWithoutGoal(const std::vector<const Node*>& nodes,
                                 const std::vector<std::pair<size_t, size_t>>& edges,
                                 const std::function<bool(const State&)>& goal) {
    std::vector<std::vector<size_t>> sources(nodes.size());
    for (const auto& [from, to] : edges) sources[to].push_back(from);
    std::vector<bool> reaches(nodes.size());
    std::vector<size_t> open;
    for (size_t id = 0; id < nodes.size(); ++id) {
      if (!goal(nodes[id]->state)) continue;
      reaches[id] = true;
      open.push_back(id);
    }
    while (!open.empty()) {
      const size_t id = open.back();
      open.pop_back();
      for (const size_t from : sources[id]) {
        if (reaches[from]) continue;
        reaches[from] = true;
        open.push_back(from);
      }
    }
    size_t id = 0;
    while (id < nodes.size() && reaches[id]) ++id;
    return id;
  }

  std::vector<Thread> threads_;
};

/// Shared words as an x86 machine shows them: each thread's stores wait in a buffer of its own, in order, until they
/// reach memory at some later time. A member of the model's state. Add one thread `[](S& s) { return s.memory.Drain(i);
/// }` for each modelled thread i: it is what makes a buffered store visible. Stores of a killed thread still drain.
template <size_t kThreads, size_t kWords, size_t kDepth = 3>
class TsoMemory {
 public:
  /// What `thread` reads: its own youngest buffered store of the word, else memory.
  [[nodiscard]] uint8_t Load(size_t thread, size_t word) const {
    const Buffer& buffer = buffers_[thread];
    for (size_t i = buffer.size; i-- > 0;) {
      if (buffer.stores[i].word == word) return buffer.stores[i].value;
    }
    return words_[word];
  }
  /// A plain or release store. false: the buffer is full, the thread has to wait for a drain.
  [[nodiscard]] bool Store(size_t thread, size_t word, uint8_t value) {
    Buffer& buffer = buffers_[thread];
    if (buffer.size == kDepth) return false;
    buffer.stores[buffer.size++] = {static_cast<uint8_t>(word), value};
    return true;
  }
  /// A full fence, or what has to hold before a locked instruction: false while stores of `thread` are still buffered.
  [[nodiscard]] bool Fenced(size_t thread) const { return buffers_[thread].size == 0; }
  /// The word itself, for locked instructions (after Fenced) and for checks of whole states.
  [[nodiscard]] uint8_t& word(size_t word) { return words_[word]; }
  [[nodiscard]] uint8_t word(size_t word) const { return words_[word]; }
  /// Lets the oldest buffered store of `thread` reach memory; false when there is none.
  bool Drain(size_t thread) {
    Buffer& buffer = buffers_[thread];
    if (buffer.size == 0) return false;
    words_[buffer.stores[0].word] = buffer.stores[0].value;
    for (size_t i = 1; i < buffer.size; ++i) buffer.stores[i - 1] = buffer.stores[i];
    buffer.stores[--buffer.size] = {};  // equal buffers compare equal
    return true;
  }

  auto operator<=>(const TsoMemory&) const = default;

 private:
  struct BufferedStore {
    uint8_t word = 0;
    uint8_t value = 0;
    auto operator<=>(const BufferedStore&) const = default;
  };
  struct Buffer {
    std::array<BufferedStore, kDepth> stores{};
    uint8_t size = 0;
    auto operator<=>(const Buffer&) const = default;
  };
  std::array<uint8_t, kWords> words_{};
  std::array<Buffer, kThreads> buffers_{};
};

}  // namespace praas::testing
