#include "daemon/check_config.h"

#include <algorithm>

#include "daemon/model/model.h"
#include "storage/base/file.h"

namespace thimble {
namespace {

// A comment begins after a blank, so such a value needs its quotes.
std::string Quoted(const std::string& value) {
  const bool plain = value.find_first_of(" \t#") == std::string::npos;
  return plain ? value : "\"" + value + "\"";
}

}  // namespace

std::string DescribeOptions(const Invocation& invocation) {
  std::string text =
      "# " + (invocation.config_file.empty() ? "no configuration file" : invocation.config_file) +
      "\n";
  const auto& table = OptionTable();
  for (size_t i = 0; i < table.size(); ++i) {
    // A default in words is none that could be typed.
    const std::string typed = table[i].show(invocation.config);
    const bool words = invocation.sources[i] == "default" && typed != table[i].fallback;
    const std::string value = words ? "#" + table[i].name + " = " + table[i].fallback
                                    : table[i].name + " = " + Quoted(typed);
    text += value + std::string(std::max<size_t>(44, value.size() + 1) - value.size(), ' ') + "# " +
            invocation.sources[i] + "\n";
  }
  return text;
}

Result<std::string> DescribeModel(const Config& config) {
  THIMBLE_ASSIGN_OR_RETURN(const std::string path, FindModelFile(config));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, OpenFile(path));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(*file));
  THIMBLE_ASSIGN_OR_RETURN(const uint32_t context, ContextTokens(config, model->context_tokens));
  return path + ": " + model->name + ", " + model->architecture + ", " +
         std::to_string(model->n_layers) + " layers, context " + std::to_string(context) + " of " +
         std::to_string(model->context_tokens) + " tokens";
}

}  // namespace thimble
