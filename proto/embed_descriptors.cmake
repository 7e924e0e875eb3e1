# cmake -DOUT=FILE.cc -DNAMES=a;b -DFILES=a.desc;b.desc -P embed_descriptors.cmake
# Descriptor sets, of one file each, as an array of C++: the lite runtime has none of its own.
set(text "#include \"descriptors.h\"\n\nnamespace thimble {\nnamespace {\n\n")
set(table "")
list(LENGTH NAMES count)
math(EXPR last "${count} - 1")
foreach(i RANGE ${last})
  list(GET NAMES ${i} name)
  list(GET FILES ${i} file)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${hex}")  # 16 bytes a line
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" bytes "${bytes}")
  string(REPLACE "\n" "\"\n\"" bytes "\"${bytes}\"")
  string(LENGTH "${hex}" digits)
  math(EXPR size "${digits} / 2")
  string(APPEND text "constexpr char kFile${i}[] =\n${bytes};\n\n")
  string(APPEND table "    {\"${name}\", {kFile${i}, ${size}}},\n")
endforeach()
string(APPEND text "constexpr EmbeddedDescriptor kFiles[] = {\n${table}};\n\n}  // namespace\n\n"
                   "std::span<const EmbeddedDescriptor> EmbeddedDescriptors() { return kFiles; }\n\n}  // namespace thimble\n")
file(WRITE ${OUT} "${text}")
