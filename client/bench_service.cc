#include "client/bench_service.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

namespace thimble {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kReadyWithin{60};
constexpr std::chrono::seconds kStopWithin{20};

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// What the kernel counted of a process's reading and writing of block devices, page faults and
// io_uring included. Zero where it may not be known.
struct DiskBytes {
  uint64_t read = 0;
  uint64_t written = 0;  // made dirty: what will be written unless it is dropped before
};

DiskBytes ReadDiskBytes(pid_t pid) {
  DiskBytes bytes;
  std::ifstream file("/proc/" + std::to_string(pid) + "/io");
  for (std::string key; file >> key;) {
    uint64_t value = 0;
    if (!(file >> value)) break;
    if (key == "read_bytes:") bytes.read = value;
    if (key == "write_bytes:") bytes.written = value;
  }
  return bytes;
}

// One request of a run, on a thread of its own: when its tokens came.
struct Stream {
  std::unique_ptr<Client> client;
  v1::GenerateRequest request;
  grpc::ClientContext context;
  std::vector<Clock::time_point> tokens;
  Status status;
};

// What the streams tell the thread that measures.
struct Progress {
  std::mutex mutex;
  std::condition_variable changed;
  unsigned first_tokens = 0;
  unsigned ended = 0;
};

void RunStream(Stream& stream, Progress& progress) {
  const auto on_event = [&](const v1::GenerateEvent& event) {
    if (!event.has_token()) return true;
    stream.tokens.push_back(Clock::now());
    if (stream.tokens.size() == 1) {
      const std::lock_guard lock(progress.mutex);
      ++progress.first_tokens;
      progress.changed.notify_one();
    }
    return true;
  };
  stream.status = stream.client->Generate(stream.request, stream.context, on_event);
  const std::lock_guard lock(progress.mutex);
  ++progress.ended;
  progress.changed.notify_one();
}

v1::GenerateRequest MakeBenchRequest(uint32_t prompt_tokens, uint32_t tokens, uint32_t vocab_size,
                                     std::mt19937_64& random) {
  v1::GenerateRequest request;
  std::uniform_int_distribution<int32_t> id(0, static_cast<int32_t>(vocab_size) - 1);
  for (uint32_t i = 0; i < prompt_tokens; ++i) request.mutable_tokens()->add_ids(id(random));
  request.set_max_tokens(tokens);
  request.set_ignore_eos(true);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

struct Snapshot {
  Clock::time_point time;
  v1::GetStatusResponse status;
  DiskBytes disk;
};

Result<Snapshot> TakeSnapshot(Client& client, pid_t pid) {
  Snapshot snapshot;
  THIMBLE_ASSIGN_OR_RETURN(snapshot.status, client.GetStatus());
  snapshot.time = Clock::now();
  snapshot.disk = ReadDiskBytes(pid);
  return snapshot;
}

// Tokens a second of the streams between `begin` and `end`, each by its own tokens' times: the
// number of its tokens there, less one, over the time from the first of them to the last.
double TogetherSpeed(const std::vector<Stream>& streams, Clock::time_point begin,
                     Clock::time_point end) {
  double sum = 0;
  for (const Stream& stream : streams) {
    const auto first = std::lower_bound(stream.tokens.begin(), stream.tokens.end(), begin);
    const auto last = std::upper_bound(first, stream.tokens.end(), end);
    if (last - first < 2) continue;
    sum += static_cast<double>(last - first - 1) / Seconds(*(last - 1) - *first);
  }
  return sum;
}

void FillPerToken(const Snapshot& before, const Snapshot& after, BenchSample& sample) {
  const auto tokens = static_cast<double>(after.status.generated_tokens_total() -
                                          before.status.generated_tokens_total());
  if (tokens <= 0) return;
  const double stall = after.status.flash_stall_seconds() - before.status.flash_stall_seconds();
  // The reader's own count where the kernel does not tell.
  const uint64_t read = after.disk.read > 0
                            ? after.disk.read - before.disk.read
                            : after.status.flash_bytes_read() - before.status.flash_bytes_read();
  sample.read_bytes_per_token = static_cast<double>(read) / tokens;
  sample.written_bytes_per_token =
      static_cast<double>(after.disk.written - before.disk.written) / tokens;
  sample.stall_seconds_per_token = stall / tokens;
  sample.compute_seconds_per_token = (Seconds(after.time - before.time) - stall) / tokens;
}

}  // namespace

Result<std::unique_ptr<BenchService>> BenchService::Start(const BenchServiceOptions& options) {
  std::unique_ptr<BenchService> service(new BenchService(options));
  service->address_ = "unix:" + options.socket;
  ChildOptions child;
  child.arguments = {options.thimbled,
                     "--model",
                     options.model,
                     "--state-dir",
                     options.directory + "/state",
                     "--listen",
                     service->address_,
                     "--http",
                     "off"};
  const bool enforced = options.in_group && options.ceiling_bytes != kNoCeiling;
  child.arguments.insert(child.arguments.end(), {"--enforcement", enforced ? "cgroup" : "none"});
  if (options.ceiling_bytes != kNoCeiling) {
    child.arguments.insert(child.arguments.end(),
                           {"--ram-ceiling", std::to_string(options.ceiling_bytes)});
  }
  if (options.context_tokens > 0) {
    child.arguments.insert(child.arguments.end(),
                           {"--context", std::to_string(options.context_tokens)});
  }
  // Alone as it comes, so that it is what it is in service.
  if (options.requests > 1) {
    child.arguments.insert(child.arguments.end(),
                           {"--max-active", std::to_string(options.requests)});
  }
  child.arguments.insert(child.arguments.end(), options.options.begin(), options.options.end());
  child.procs_files = options.procs_files;
  child.cpu = options.cpu;
  child.output = options.directory + "/log";
  const Clock::time_point begin = Clock::now();
  THIMBLE_ASSIGN_OR_RETURN(service->child_, Child::Start(child));
  // Its log is watched, not its socket: connecting is work that would be measured.
  while (service->child_->Output().find(" event=ready ") == std::string::npos) {
    if (!service->child_->Running()) {
      const Status died = service->Died();
      return died.ok() ? AbortedError("thimbled ended while it started") : died;
    }
    if (Clock::now() - begin > kReadyWithin) {
      return DeadlineExceededError("thimbled was not ready after 60 s");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  service->start_seconds_ = Seconds(Clock::now() - begin);
  THIMBLE_ASSIGN_OR_RETURN(Client client, Client::Connect(service->address_));
  service->status_client_ = std::make_unique<Client>(std::move(client));
  return service;
}

Result<BenchSample> BenchService::Run(uint32_t prompt_tokens, uint32_t tokens, uint32_t vocab_size,
                                      uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Stream> streams(options_.requests);
  for (Stream& stream : streams) {
    THIMBLE_ASSIGN_OR_RETURN(Client client, Client::Connect(address_));
    stream.client = std::make_unique<Client>(std::move(client));
    stream.request = MakeBenchRequest(prompt_tokens, tokens, vocab_size, random);
    stream.tokens.reserve(tokens);
    // The channel connects on its first call: that belongs to no prompt.
    THIMBLE_RETURN_IF_ERROR(stream.client->GetStatus().status());
  }
  Progress progress;
  const Clock::time_point begin = Clock::now();
  std::vector<std::thread> threads;
  threads.reserve(streams.size());
  for (Stream& stream : streams) {
    threads.emplace_back([&stream, &progress] { RunStream(stream, progress); });
  }
  const auto n = static_cast<unsigned>(streams.size());
  {
    std::unique_lock lock(progress.mutex);
    progress.changed.wait(lock, [&] { return progress.first_tokens == n || progress.ended > 0; });
  }
  const Result<Snapshot> before = TakeSnapshot(*status_client_, child_->pid());
  {
    std::unique_lock lock(progress.mutex);
    progress.changed.wait(lock, [&] { return progress.ended > 0; });
  }
  const Result<Snapshot> after = TakeSnapshot(*status_client_, child_->pid());
  for (std::thread& thread : threads) thread.join();
  for (const Stream& stream : streams) THIMBLE_RETURN_IF_ERROR(stream.status);
  THIMBLE_RETURN_IF_ERROR(before.status());
  THIMBLE_RETURN_IF_ERROR(after.status());

  BenchSample sample;
  Clock::time_point last_first = begin;
  Clock::time_point first_last = Clock::time_point::max();
  for (const Stream& stream : streams) {
    if (stream.tokens.size() < tokens) {
      return AbortedError("a request ended after " + std::to_string(stream.tokens.size()) + " of " +
                          std::to_string(tokens) + " tokens");
    }
    last_first = std::max(last_first, stream.tokens.front());
    first_last = std::min(first_last, stream.tokens.back());
  }
  sample.prompt_tokens_per_second =
      static_cast<double>(prompt_tokens) * n / Seconds(last_first - begin);
  // Asking for the status held the daemon up for a moment: what comes after it counts, unless this
  // process got its turn so late that most tokens were there already.
  const bool late = before->time - last_first > (first_last - last_first) / 2;
  sample.generation_tokens_per_second =
      TogetherSpeed(streams, late ? last_first : before->time, first_last);
  if (sample.generation_tokens_per_second <= 0) {
    return FailedPreconditionError(
        std::to_string(tokens) + " tokens of " + std::to_string(n) +
        " requests never overlap: the first is done before the last has begun; ask for more");
  }
  FillPerToken(*before, *after, sample);
  return sample;
}

Status BenchService::Died() {
  if (child_->Running()) return {};
  return child_->Finish(std::chrono::seconds(0));
}

Status BenchService::Stop() {
  status_client_.reset();
  return child_->Stop(kStopWithin);
}

}  // namespace thimble
