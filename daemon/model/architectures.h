// The table of architectures: a name as general.architecture gives it, and the function that maps
// the file's keys and tensors to a Model.
//
// To add one: write arch_NAME.cc with a `Status BuildNAME(ArchReader&, Model*)` (arch_llama.cc is
// the one to follow; arch_reader.h has the checked look-ups), declare it here, add its row to
// kArchitectures in architectures.cc and its file to CMakeLists.txt. Nothing else changes: plan and
// runner know a Model's matrices, norms and numbers, and no architecture.
#pragma once

#include "daemon/model/arch_reader.h"
#include "daemon/model/model.h"
#include "storage/base/status.h"

namespace thimble {

// Each fills in everything of `model` from hidden_size to output. `model->gguf` is complete and
// stays where it is; `reader` reads from it, and its prefix is the architecture's name. Tensors
// that the function does not ask `reader` for are refused afterwards.
Status BuildGpt2(ArchReader& reader, Model* model);
Status BuildLlama(ArchReader& reader, Model* model);

}  // namespace thimble
