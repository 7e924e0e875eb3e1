# Puts daemon/http/page/ together into one page and that into a source file of constants.

# Indentation and lines of comment are for those who read the source.
function(thimble_read_compact path out)
  file(READ ${path} text)
  string(REGEX REPLACE "\n[ \t]+" "\n" text "${text}")
  string(REGEX REPLACE "\n//[^\n]*" "" text "${text}")
  string(REGEX REPLACE "\n\n+" "\n" text "${text}")
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

# The SHA-256 of a text in base64, as a Content-Security-Policy names it: three bytes, six digits, at a time.
function(thimble_sha256_base64 text out)
  set(alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  string(SHA256 hex "${text}")
  set(base64 "")
  # 32 bytes are ten times three and two: the last six digits end in a byte that is not there.
  foreach(at RANGE 0 60 6)
    string(SUBSTRING "${hex}00" ${at} 6 digits)
    foreach(shift 18 12 6 0)
      math(EXPR index "(0x${digits} >> ${shift}) & 63")
      string(SUBSTRING ${alphabet} ${index} 1 letter)
      string(APPEND base64 ${letter})
    endforeach()
  endforeach()
  string(SUBSTRING ${base64} 0 43 base64)
  set(${out} "${base64}=" PARENT_SCOPE)
endfunction()

# thimble_status_page(OUT): OUT is the source file. Made anew, at configuring, when a part of it changes.
function(thimble_status_page out)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/http/page)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    ${folder}/index.html ${folder}/page.css ${folder}/page.js)
  thimble_read_compact(${folder}/index.html PAGE)
  thimble_read_compact(${folder}/page.css style)
  thimble_read_compact(${folder}/page.js script)
  thimble_sha256_base64("${style}" STYLE_HASH)
  thimble_sha256_base64("${script}" SCRIPT_HASH)
  string(REPLACE "@STYLE@" "${style}" PAGE "${PAGE}")
  string(REPLACE "@SCRIPT@" "${script}" PAGE "${PAGE}")
  configure_file(${folder}/page.cc.in ${CMAKE_CURRENT_BINARY_DIR}/http/page.cc @ONLY)
  set(${out} ${CMAKE_CURRENT_BINARY_DIR}/http/page.cc PARENT_SCOPE)
endfunction()
