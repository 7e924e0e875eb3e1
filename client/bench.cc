// `thimble bench`: speed, memory and flash of the daemon at a list of ceilings, each a cold start
// in a control group of its own, beside the bound of what flash and processor allow, and beside
// llama.cpp where that is asked for. Memory: the figures.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>
#include <utility>

#include "client/bench_child.h"
#include "client/bench_flash.h"
#include "client/bench_group.h"
#include "client/bench_peer.h"
#include "client/bench_report.h"
#include "client/bench_service.h"
#include "client/common.h"
#include "client/offline.h"
#include "daemon/model/model.h"
#include "daemon/model/tokenizer.h"
#include "storage/base/bytes.h"
#include "storage/base/file.h"
#include "storage/vocab_index.h"

namespace thimble {
namespace {

// A directory that goes with its object.
class Scratch {
 public:
  static Result<std::unique_ptr<Scratch>> Make(const std::string& base) {
    std::string path = base + "/thimble-bench-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return ErrnoError(errno, "create " + path);
    return std::unique_ptr<Scratch>(new Scratch(path));
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

void Say(const std::string& text) {
  (void)std::fprintf(stderr, "thimble bench: %s\n", text.c_str());
}

std::string CeilingName(uint64_t ceiling_bytes) {
  return ceiling_bytes == kNoCeiling ? "no ceiling" : FormatBytes(ceiling_bytes);
}

// "64M,40M,none".
Result<std::vector<uint64_t>> ParseCeilings(const std::string& text) {
  std::vector<uint64_t> ceilings;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == "none") {
      ceilings.push_back(kNoCeiling);
      continue;
    }
    THIMBLE_ASSIGN_OR_RETURN(const uint64_t bytes, ParseSize(word));
    if (bytes == 0) return InvalidArgumentError("--ceilings: 0 is no ceiling (none: without one)");
    ceilings.push_back(bytes);
  }
  if (ceilings.empty()) return InvalidArgumentError("--ceilings: at least one");
  return ceilings;
}

// A file of this name beside this program, else the name for the PATH.
std::string Beside(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path beside = self.parent_path() / name;
  return !error && ::access(beside.c_str(), X_OK) == 0 ? beside.string() : name;
}

// Words of which the model's own tokenizer makes `tokens` tokens, or a few more.
Result<std::string> PeerPrompt(const Model& model, RandomAccessFile& file, uint32_t tokens) {
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<ScratchCache> cache, ScratchCache::Make());
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<VocabIndex> index,
                           VocabIndex::Open(cache->env(), model.fingerprint));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                           Tokenizer::Open(model, file, *index));
  std::string text;
  for (uint32_t word = 0; word < tokens; ++word) {
    for (uint32_t letter = 0; letter < 3; ++letter) {
      text += "etaoinshrdlu"[(word * 7 + letter * (word % 11 + 1)) % 12];
    }
    THIMBLE_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, tokenizer->Encode(text, {}));
    if (ids.size() >= tokens) break;
    text += ' ';
  }
  return text;
}

class Bench {
 public:
  explicit Bench(const BenchCommand& command) : command_(command) {}

  // Everything that can be refused before anything is measured.
  Status Prepare();
  // Prints each row of ours as it is there (with --json), and the table at the end.
  Status Run();
  [[nodiscard]] bool any_failed() const { return any_failed_; }

 private:
  Status CheckGroups();
  // Runs the daemon under a ceiling, flash measured before and after each run where `with_flash`.
  // Never an error but an interruption: the row says what failed.
  Status MeasureService(BenchRow& row, uint64_t flash_rate, bool with_flash);
  Result<uint64_t> RunService(BenchRow& row, const std::vector<std::string>& procs_files);
  // The flash as it is now: in the way that is named, or in the fastest of all.
  Result<FlashRate> MeasureFlashNow(const std::string& way);
  Status MeasurePeer(uint64_t ceiling_bytes);
  Result<std::unique_ptr<BenchGroup>> MakeGroup(uint64_t limit_bytes, uint64_t flash_rate);
  Status FreshDirectory();
  void DropCaches() const;
  Status WriteFiles() const;

  const BenchCommand& command_;
  std::vector<uint64_t> ceilings_;
  uint64_t flash_rate_ = 0;
  std::string device_;
  std::string model_path_;
  std::string thimbled_;
  std::vector<std::string> daemon_options_;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<Scratch> socket_directory_;  // a socket's path is short
  std::string directory_;                      // of the row that is measured
  uint32_t vocab_size_ = 0;
  bool groups_ = true;
  std::vector<PeerVariant> peers_;
  std::string peer_prompt_;
  BenchReport report_;
  bool any_failed_ = false;
};

Status Bench::Prepare() {
  THIMBLE_ASSIGN_OR_RETURN(ceilings_, ParseCeilings(command_.ceilings));
  if (!command_.flash_rate.empty()) {
    THIMBLE_ASSIGN_OR_RETURN(flash_rate_, ParseSize(command_.flash_rate));
    THIMBLE_ASSIGN_OR_RETURN(device_, DeviceOf(command_.model));
  }
  if (!command_.peer.empty() && command_.peer != "llama-cpp") {
    return InvalidArgumentError("--peer " + command_.peer + ": llama-cpp is the one there is");
  }
  // Its processes are given absolute paths: they may run elsewhere.
  std::error_code error;
  model_path_ = std::filesystem::absolute(command_.model, error);
  thimbled_ = command_.thimbled.empty() ? Beside("thimbled") : command_.thimbled;
  std::istringstream words(command_.daemon_options);
  daemon_options_.assign(std::istream_iterator<std::string>(words), {});
  // The bound is that of a pass for every token. Drafts that are right make tokens without one;
  // what they bring depends on the text, and the text of random prompts is none.
  if (command_.daemon_options.find("--draft-tokens") == std::string::npos) {
    daemon_options_.insert(daemon_options_.end(), {"--draft-tokens", "0"});
  }
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, OpenFile(model_path_));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(*file));
  vocab_size_ = model->vocab_size;
  report_.model_name = model->name;
  report_.requests = command_.requests;
  report_.prompt_tokens = command_.prompt_tokens;
  report_.tokens = command_.tokens;
  const uint32_t context = command_.context_tokens;
  if (context > model->context_tokens) {
    return InvalidArgumentError("--context " + std::to_string(context) +
                                ": the model was trained for " +
                                std::to_string(model->context_tokens) + " tokens, no more");
  }
  if (command_.prompt_tokens + command_.tokens > context) {
    return InvalidArgumentError("--prompt " + std::to_string(command_.prompt_tokens) +
                                " and --tokens " + std::to_string(command_.tokens) +
                                " do not fit into --context " + std::to_string(context));
  }
  THIMBLE_ASSIGN_OR_RETURN(scratch_, Scratch::Make(command_.scratch));
  THIMBLE_ASSIGN_OR_RETURN(socket_directory_, Scratch::Make("/tmp"));
  struct statfs info {};
  if (::statfs(scratch_->path().c_str(), &info) == 0 && info.f_type == TMPFS_MAGIC) {
    Say(command_.scratch +
        " lies in RAM (tmpfs): what the daemon writes there counts against the "
        "ceiling and is not given back; name another with --scratch");
  }
  if (!command_.peer.empty()) {
    THIMBLE_ASSIGN_OR_RETURN(peers_, FindLlamaCpp());
    THIMBLE_ASSIGN_OR_RETURN(peer_prompt_, PeerPrompt(*model, *file, command_.prompt_tokens));
  }
  return CheckGroups();
}

Status Bench::CheckGroups() {
  const Result<std::unique_ptr<BenchGroup>> group = MakeGroup(64 * kMiB, flash_rate_);
  if (group.ok()) return {};
  if (flash_rate_ > 0) return group.status();
  groups_ = false;
  Say("no control group can be made here (" + group.status().message() +
      "): nothing enforces the ceilings, and page cache is not in the peaks");
  return {};
}

Result<std::unique_ptr<BenchGroup>> Bench::MakeGroup(uint64_t limit_bytes, uint64_t flash_rate) {
  return BenchGroup::Make(
      KernelCgroupFs(),
      {.limit_bytes = limit_bytes, .flash_bytes_per_second = flash_rate, .device = device_});
}

Status Bench::FreshDirectory() {
  std::error_code error;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, error);
  directory_ = scratch_->path() + "/" + "run";
  std::filesystem::create_directory(directory_, error);
  return error ? ErrnoError(error.value(), "create " + directory_) : Status();
}

// What a cold start finds: nothing of the model or the program in the page cache. Without root only
// what nobody has mapped can be dropped, file by file.
void Bench::DropCaches() const {
  ::sync();
  for (const std::string& path : {model_path_, thimbled_}) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
  (void)KernelCgroupFs().Write("/proc/sys/vm/drop_caches", "3");
}

Result<FlashRate> Bench::MeasureFlashNow(const std::string& way) {
  std::unique_ptr<BenchGroup> group;
  ChildOptions options;
  if (flash_rate_ > 0) {
    THIMBLE_ASSIGN_OR_RETURN(group, MakeGroup(kNoCeiling, flash_rate_));
    options.procs_files = group->procs_files();
  }
  options.arguments = {"/proc/self/exe", "flash", model_path_, "--rate-only"};
  if (!way.empty()) options.arguments.insert(options.arguments.end(), {"--way", way});
  options.cpu = command_.cpu;
  options.output = directory_ + "/flash";
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Child> child, Child::Start(options));
  THIMBLE_RETURN_IF_ERROR(child->Finish(std::chrono::seconds(300)));
  std::istringstream output(child->Output());
  FlashRate flash;
  if (!(output >> flash.bytes_per_second)) {
    return DataLossError("thimble flash printed no number: " + child->Output());
  }
  std::getline(output >> std::ws, flash.method);
  return flash;
}

// The weights of a pass, in bytes, as the daemon says.
Result<uint64_t> Bench::RunService(BenchRow& row, const std::vector<std::string>& procs_files) {
  BenchServiceOptions options;
  options.thimbled = thimbled_;
  options.model = model_path_;
  options.ceiling_bytes = row.ceiling_bytes;
  options.in_group = !procs_files.empty();
  options.context_tokens = command_.context_tokens;
  options.requests = command_.requests;
  options.options = daemon_options_;
  options.directory = directory_;
  options.socket = socket_directory_->path() + "/socket";
  options.procs_files = procs_files;
  options.cpu = command_.cpu;
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<BenchService> service,
                           BenchService::Start(options));
  row.start_seconds = service->start_seconds();
  // A disk's speed changes from one second to the next: each run is held against its own.
  const auto flash_now = [&]() -> Result<double> {
    if (row.flash_method.empty()) return 0.0;
    THIMBLE_ASSIGN_OR_RETURN(const FlashRate flash, MeasureFlashNow(row.flash_method));
    return flash.bytes_per_second;
  };
  THIMBLE_ASSIGN_OR_RETURN(double before, flash_now());
  for (uint32_t run = 0; run < command_.runs; ++run) {
    Result<BenchSample> sample =
        service->Run(command_.prompt_tokens, command_.tokens, vocab_size_, run + 1);
    if (!sample.ok()) {
      const Status died = service->Died();
      return died.ok() ? sample.status() : died;
    }
    THIMBLE_ASSIGN_OR_RETURN(const double after, flash_now());
    sample->flash_bytes_per_second = (std::exchange(before, after) + after) / 2;
    row.samples.push_back(*sample);
  }
  THIMBLE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, service->GetStatus());
  row.peak_bytes = status.memory_peak_bytes();
  row.oom_kills = status.oom_kills();
  THIMBLE_RETURN_IF_ERROR(service->Stop());
  return status.model_bytes();
}

Status Bench::MeasureService(BenchRow& row, uint64_t flash_rate, bool with_flash) {
  THIMBLE_RETURN_IF_ERROR(FreshDirectory());
  if (with_flash) {
    THIMBLE_ASSIGN_OR_RETURN(const FlashRate flash, MeasureFlashNow({}));
    row.flash_method = flash.method;
  }
  DropCaches();
  std::unique_ptr<BenchGroup> group;
  std::vector<std::string> procs_files;
  if (groups_) {
    THIMBLE_ASSIGN_OR_RETURN(group, MakeGroup(row.ceiling_bytes, flash_rate));
    procs_files = group->procs_files();
  }
  const Result<uint64_t> weights = RunService(row, procs_files);
  if (Interrupted()) return CancelledError("interrupted");
  if (group != nullptr) {
    // The group's own figures: they outlive the daemon, and count what it did on its way out.
    THIMBLE_ASSIGN_OR_RETURN(const CeilingUsage usage, group->Usage());
    if (usage.peak > 0) row.peak_bytes = usage.peak;
    row.oom_kills = usage.oom_kills;
  }
  if (weights.ok()) {
    report_.weight_bytes = *weights;
  } else {
    row.failure = weights.status().ToString();
    any_failed_ = true;
    Say(CeilingName(row.ceiling_bytes) + ": " + row.failure);
  }
  return {};
}

// Both variants, each run a cold process of its own in a fresh group; the faster one is the row.
Status Bench::MeasurePeer(uint64_t ceiling_bytes) {
  std::vector<BenchRow> rows;
  // A variant that takes four times as long as a run of the one before has lost. With weights made
  // over in RAM and no RAM for them, it would go on for hours.
  std::chrono::seconds longest(120);
  for (const PeerVariant& variant : peers_) {
    BenchRow& row = rows.emplace_back();
    row.engine = "llama.cpp";
    row.variant = variant.name;
    row.ceiling_bytes = ceiling_bytes;
    for (uint32_t run = 0; run < command_.runs; ++run) {
      THIMBLE_RETURN_IF_ERROR(FreshDirectory());
      DropCaches();
      std::unique_ptr<BenchGroup> group;
      PeerOptions options;
      if (groups_) {
        THIMBLE_ASSIGN_OR_RETURN(group, MakeGroup(ceiling_bytes, flash_rate_));
        options.procs_files = group->procs_files();
      }
      options.model = model_path_;
      options.prompt = peer_prompt_;
      options.tokens = command_.tokens;
      options.context_tokens = command_.context_tokens;
      options.directory = directory_;
      options.cpu = command_.cpu;
      options.longest = longest;
      const auto begin = std::chrono::steady_clock::now();
      const Result<BenchSample> sample = RunPeer(variant, options);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      if (Interrupted()) return CancelledError("interrupted");
      if (group != nullptr) {
        THIMBLE_ASSIGN_OR_RETURN(const CeilingUsage usage, group->Usage());
        row.peak_bytes = std::max(row.peak_bytes, usage.peak);
        row.oom_kills += usage.oom_kills;
      }
      if (!sample.ok()) {
        row.failure = sample.status().ToString();
        break;  // it would fail again
      }
      row.samples.push_back(*sample);
      if (&row == &rows.front() && run == 0) {
        longest = std::chrono::seconds(10 + static_cast<int>(4 * took.count()));
      }
    }
    const std::string said =
        row.samples.empty() ? row.failure : std::to_string(row.generation().median) + " tokens/s";
    Say(CeilingName(ceiling_bytes) + ", llama.cpp, " + variant.name + ": " + said);
  }
  const auto best =
      std::max_element(rows.begin(), rows.end(), [](const BenchRow& a, const BenchRow& b) {
        return a.generation().median < b.generation().median;
      });
  report_.rows.push_back(std::move(*best));
  return {};
}

Status Bench::WriteFiles() const {
  const auto write = [](const std::string& path, const std::string& text) -> Status {
    if (path.empty()) return {};
    std::ofstream file(path);
    file << text;
    file.close();
    return file.fail() ? ErrnoError(errno, "write " + path) : Status();
  };
  THIMBLE_RETURN_IF_ERROR(write(command_.csv, BenchCsv(report_)));
  return write(command_.svg, BenchSvg(report_));
}

Status Bench::Run() {
  const bool whole_shown =
      std::find(ceilings_.begin(), ceilings_.end(), kNoCeiling) != ceilings_.end();
  // With all memory and unthrottled: the seconds that a token costs to compute.
  BenchRow whole;
  THIMBLE_RETURN_IF_ERROR(MeasureService(whole, /*flash_rate=*/0, whole_shown));
  if (whole.samples.empty()) return AbortedError("with everything in RAM: " + whole.failure);
  double compute = 1 / whole.generation().median;
  std::vector<double> computes = {compute};
  std::vector<double> rates;
  for (const uint64_t ceiling : ceilings_) {
    BenchRow row;
    if (ceiling == kNoCeiling) {
      row = whole;
      SetBounds(row, report_.weight_bytes, compute, command_.requests);
    } else {
      row.ceiling_bytes = ceiling;
      THIMBLE_RETURN_IF_ERROR(MeasureService(row, flash_rate_, /*with_flash=*/true));
      // The processor's speed changes, too: as it was before and, unless that fails, after.
      BenchRow again;
      THIMBLE_RETURN_IF_ERROR(MeasureService(again, /*flash_rate=*/0, /*with_flash=*/false));
      const double after = again.samples.empty() ? compute : 1 / again.generation().median;
      SetBounds(row, report_.weight_bytes, (std::exchange(compute, after) + after) / 2,
                command_.requests);
      computes.push_back(after);
    }
    rates.push_back(row.flash());
    if (command_.json) {
      (void)std::printf("%s\n", BenchJson(row).c_str());
      (void)std::fflush(stdout);
    }
    Say(CeilingName(ceiling) + ": " + std::to_string(row.generation().median) + " tokens/s, " +
        std::to_string(row.fraction_of_bound()) + " of the bound");
    report_.rows.push_back(std::move(row));
    if (!peers_.empty()) THIMBLE_RETURN_IF_ERROR(MeasurePeer(ceiling));
  }
  report_.flash_bytes_per_second = SpreadOf(rates).median;
  report_.compute_seconds = SpreadOf(computes).median;
  if (!command_.json) (void)std::fputs(BenchTable(report_).c_str(), stdout);
  return WriteFiles();
}

}  // namespace

int RunBenchCommand(const BenchCommand& command) {
  HandleInterrupts();
  Bench bench(command);
  Status status = bench.Prepare();
  const bool usage = status.code() == StatusCode::kInvalidArgument;
  if (status.ok()) status = bench.Run();
  if (status.ok()) return bench.any_failed() ? kExitFailed : kExitOk;
  PrintError(status, /*json=*/false);
  if (Interrupted()) return kExitInterrupted;
  return usage ? kExitUsage : kExitFailed;
}

}  // namespace thimble
