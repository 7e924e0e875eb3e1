#include "client/bench_peer.h"

#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>

#include "client/bench_child.h"

namespace thimble {
namespace {

// Model, prompt file, tokens, context, "small" or "default". Prints what llama-completion prints.
constexpr const char* kPythonDriver = R"PY(
import sys, time
import llama_cpp
from llama_cpp import Llama
model, prompt, tokens, context, variant = sys.argv[1:]
batch = {}
if variant == "small":
    batch = {"n_batch": 32, "n_ubatch": 32}
    library = sys.modules["llama_cpp.llama_cpp"]
    made = library.llama_model_default_params
    def without_repack():
        parameters = made()
        parameters.use_extra_bufts = False
        return parameters
    library.llama_model_default_params = without_repack
engine = Llama(model, n_ctx=int(context), n_threads=1, n_threads_batch=1, verbose=False, **batch)
ids = engine.tokenize(open(prompt, "rb").read())
engine.eval(ids[:1])
engine.reset()
def tell(name, seconds, n):
    print(f"{name} time = {seconds * 1e3:.2f} ms / {n} tokens ({seconds / n * 1e3:.2f} ms per token, {n / seconds:.4f} tokens per second)")
began = time.perf_counter()
engine.eval(ids)
tell("prompt eval", time.perf_counter() - began, len(ids))
token = engine.sample(temp=0)
began = time.perf_counter()
for _ in range(int(tokens)):
    engine.eval([token])
    token = engine.sample(temp=0)
tell("eval", time.perf_counter() - began, int(tokens))
)PY";

// Its path, or "" where the PATH has no such program.
std::string Which(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = (folder.empty() ? "." : folder) + "/" + program;
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return {};
}

bool HasLlamaCppPython(const std::string& python) {
  const std::string command =
      python +
      " -c 'import importlib.util as u; raise SystemExit(u.find_spec(\"llama_cpp\") is None)'" +
      " >/dev/null 2>&1";
  return std::system(command.c_str()) == 0;  // NOLINT(bugprone-command-processor): a fixed command
}

std::vector<PeerVariant> Variants(const std::string& program, bool python) {
  return {
      {.name = "default", .program = program, .python = python, .small = false},
      {.name = "no-repack, batches of 32", .program = program, .python = python, .small = true}};
}

std::vector<std::string> Arguments(const PeerVariant& variant, const PeerOptions& options,
                                   const std::string& prompt) {
  const std::string tokens = std::to_string(options.tokens);
  const std::string context = std::to_string(options.context_tokens);
  if (variant.python) {
    return {variant.program, "-c",   kPythonDriver, options.model,
            prompt,          tokens, context,       variant.small ? "small" : "default"};
  }
  std::vector<std::string> arguments = {variant.program,
                                        "-m",
                                        options.model,
                                        "-f",
                                        prompt,
                                        "-n",
                                        tokens,
                                        "-c",
                                        context,
                                        "-t",
                                        "1",
                                        "-tb",
                                        "1",
                                        "--temp",
                                        "0",
                                        "--ignore-eos",
                                        "-no-cnv",
                                        "--no-display-prompt",
                                        "--simple-io",
                                        "--perf"};
  if (variant.small) {
    arguments.insert(arguments.end(), {"--no-repack", "-b", "32", "-ub", "32"});
  }
  return arguments;
}

// The number before "tokens per second" in the line that has `name` and "time =", 0 where there is
// none. "eval time" is a part of "prompt eval time": `name` is what the words before "time" are.
double TokensPerSecond(std::string_view output, std::string_view name) {
  std::istringstream lines{std::string(output)};
  for (std::string line; std::getline(lines, line);) {
    const size_t time = line.find(" time =");
    const size_t unit = line.find(" tokens per second");
    if (time == std::string::npos || unit == std::string::npos || unit < time) continue;
    const size_t colon = line.rfind(':', time);
    size_t begin = colon == std::string::npos ? 0 : colon + 1;
    begin = line.find_first_not_of(' ', begin);
    if (line.substr(begin, time - begin) != name) continue;
    const size_t number = line.rfind(' ', unit - 1) + 1;
    double value = 0;
    const auto [end, error] = std::from_chars(line.data() + number, line.data() + unit, value);
    if (error == std::errc() && end == line.data() + unit) return value;
  }
  return 0;
}

}  // namespace

Result<std::vector<PeerVariant>> FindLlamaCpp() {
  for (const char* program : {"llama-completion", "llama-cli"}) {
    if (const std::string path = Which(program); !path.empty()) return Variants(path, false);
  }
  if (HasLlamaCppPython("python3")) return Variants("python3", true);
  return NotFoundError(
      "--peer llama-cpp: neither llama-completion nor llama-cli on the PATH, nor llama_cpp "
      "(pip install llama-cpp-python) in python3");
}

Result<BenchSample> ParseLlamaTimings(std::string_view output) {
  BenchSample sample;
  sample.prompt_tokens_per_second = TokensPerSecond(output, "prompt eval");
  sample.generation_tokens_per_second = TokensPerSecond(output, "eval");
  if (sample.prompt_tokens_per_second <= 0 || sample.generation_tokens_per_second <= 0) {
    return DataLossError("llama.cpp printed no \"eval time = ... tokens per second\"");
  }
  return sample;
}

Result<BenchSample> RunPeer(const PeerVariant& variant, const PeerOptions& options) {
  const std::string prompt = options.directory + "/prompt";
  std::ofstream(prompt) << options.prompt;
  ChildOptions child_options;
  child_options.arguments = Arguments(variant, options, prompt);
  child_options.procs_files = options.procs_files;
  child_options.cpu = options.cpu;
  child_options.output = options.directory + "/log";
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Child> child, Child::Start(child_options));
  THIMBLE_RETURN_IF_ERROR(child->Finish(options.longest));
  return ParseLlamaTimings(child->Output());
}

}  // namespace thimble
