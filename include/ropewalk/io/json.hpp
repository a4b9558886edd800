// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A JSON tree with typed access whose errors carry the JSON pointer.

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/io/json_events.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A JSON value. Objects keep the order of their members, whose keys are distinct.
class Json {
 public:
  using Array = std::vector<Json>;
  /// keys[i] has values[i].
  struct Object {
    std::vector<std::string> keys;
    std::vector<Json> values;
  };

  Json() = default;  ///< null
  explicit Json(bool v) : value_(v) {}
  explicit Json(JsonNumber v) : value_(v) {}
  explicit Json(std::string v) : value_(std::move(v)) {}
  explicit Json(Array v) : value_(std::move(v)) {}
  explicit Json(Object v) : value_(std::move(v)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  const bool* if_bool() const { return std::get_if<bool>(&value_); }
  const JsonNumber* if_number() const { return std::get_if<JsonNumber>(&value_); }
  const std::string* if_string() const { return std::get_if<std::string>(&value_); }
  const Array* if_array() const { return std::get_if<Array>(&value_); }
  const Object* if_object() const { return std::get_if<Object>(&value_); }
  Array* if_array() { return std::get_if<Array>(&value_); }
  Object* if_object() { return std::get_if<Object>(&value_); }
  /// The member's value, or null; also for what is no object. Linear in the members.
  const Json* find(std::string_view key) const {
    const Object* o = if_object();
    for (std::size_t i = 0; o != nullptr && i < o->keys.size(); ++i) {
      if (o->keys[i] == key) return &o->values[i];
    }
    return nullptr;
  }

 private:
  std::variant<std::monostate, bool, JsonNumber, std::string, Array, Object> value_;
};

/// Same structure and values: numbers compare by value, members in any order.
inline bool same_json(const Json& a, const Json& b) {
  if (const Json::Object* x = a.if_object()) {
    const Json::Object* y = b.if_object();
    if (y == nullptr || x->keys.size() != y->keys.size()) return false;
    for (std::size_t i = 0; i < x->keys.size(); ++i) {
      const Json* other = b.find(x->keys[i]);
      if (other == nullptr || !same_json(x->values[i], *other)) return false;
    }
    return true;
  }
  if (const Json::Array* x = a.if_array()) {
    const Json::Array* y = b.if_array();
    if (y == nullptr || x->size() != y->size()) return false;
    for (std::size_t i = 0; i < x->size(); ++i) {
      if (!same_json((*x)[i], (*y)[i])) return false;
    }
    return true;
  }
  if (const JsonNumber* x = a.if_number()) {
    const JsonNumber* y = b.if_number();
    return y != nullptr && x->real == y->real &&
           (x->form != y->form || (x->natural == y->natural && x->integer == y->integer));
  }
  if (const std::string* x = a.if_string()) return b.if_string() != nullptr && *x == *b.if_string();
  if (const bool* x = a.if_bool()) return b.if_bool() != nullptr && *x == *b.if_bool();
  return b.is_null();
}

/// "null", "a boolean", "a number", "a string", "an array", "an object".
inline const char* json_type_text(const Json& v) {
  if (v.if_bool() != nullptr) return "a boolean";
  if (v.if_number() != nullptr) return "a number";
  if (v.if_string() != nullptr) return "a string";
  if (v.if_array() != nullptr) return "an array";
  if (v.if_object() != nullptr) return "an object";
  return "null";
}

/// For messages: the value of a scalar, else its type.
inline std::string json_found_text(const Json& v) {
  if (const bool* b = v.if_bool()) return *b ? "true" : "false";
  if (const std::string* s = v.if_string()) return "the string " + escaped(*s);
  if (const JsonNumber* n = v.if_number()) {
    switch (n->form) {
      case JsonNumber::Form::natural:
        return std::to_string(n->natural);
      case JsonNumber::Form::negative:
        return std::to_string(n->integer);
      case JsonNumber::Form::huge:
      case JsonNumber::Form::real:
        return number_text(n->real);
    }
  }
  return json_type_text(v);
}

/// A value of a document with its place: what it gives is of the wanted type, or an
/// Error(config) names file and JSON pointer. Lives no longer than the document.
class JsonView {
 public:
  JsonView(const Json& value, const std::string& file, std::string pointer = {})
      : value_(&value), file_(&file), pointer_(std::move(pointer)) {}

  const Json& value() const { return *value_; }
  const std::string& file() const { return *file_; }
  const std::string& pointer() const { return pointer_; }
  bool is_null() const { return value_->is_null(); }

  /// \throws Error of class `kind` about this value.
  [[noreturn]] void refuse(std::string expected, std::string fix = {},
                           ErrorClass kind = ErrorClass::config) const {
    fail({.kind = kind,
          .file = *file_,
          .where = pointer_,
          .found = json_found_text(*value_),
          .expected = std::move(expected),
          .fix = std::move(fix)});
  }
  bool as_bool() const {
    const bool* v = value_->if_bool();
    if (v == nullptr) refuse("true or false");
    return *v;
  }
  /// An integer literal; 2.0 and 2e0 are not.
  std::int64_t as_integer() const {
    const JsonNumber* v = value_->if_number();
    if (v == nullptr || v->form == JsonNumber::Form::real) refuse("an integer");
    if (v->form == JsonNumber::Form::negative) return v->integer;
    if (v->form == JsonNumber::Form::huge ||
        v->natural > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      refuse("an integer below 2^63");
    }
    return static_cast<std::int64_t>(v->natural);
  }
  double as_number() const {
    const JsonNumber* v = value_->if_number();
    if (v == nullptr) refuse("a number");
    return v->real;
  }
  const std::string& as_string() const {
    const std::string* v = value_->if_string();
    if (v == nullptr) refuse("a string");
    return *v;
  }
  const Json::Object& as_object() const {
    const Json::Object* v = value_->if_object();
    if (v == nullptr) refuse("an object");
    return *v;
  }
  std::vector<JsonView> elements() const {
    const Json::Array* v = value_->if_array();
    if (v == nullptr) refuse("an array");
    std::vector<JsonView> out;
    for (std::size_t i = 0; i < v->size(); ++i) {
      out.emplace_back((*v)[i], *file_, pointer_ + "/" + std::to_string(i));
    }
    return out;
  }
  /// The member `key` if it is there and not null.
  std::optional<JsonView> find(std::string_view key) const {
    as_object();
    const Json* v = value_->find(key);
    if (v == nullptr || v->is_null()) return std::nullopt;
    return member(key, *v);
  }
  /// The member `key`, which may be null. \throws Error(config) when it is missing.
  JsonView at(std::string_view key) const {
    as_object();
    const Json* v = value_->find(key);
    if (v == nullptr) {
      fail({.kind = ErrorClass::config,
            .file = *file_,
            .where = pointer_,
            .field = std::string(key),
            .found = "no such key",
            .expected = "the key " + escaped(key)});
    }
    return member(key, *v);
  }
  /// The view of a member found by other means.
  JsonView member(std::string_view key, const Json& value) const {
    std::string pointer = pointer_ + "/";
    JsonPath::append_pointer_step(pointer, key);
    return {value, *file_, std::move(pointer)};
  }

 private:
  const Json* value_;
  const std::string* file_;
  std::string pointer_;
};

namespace detail {

/// Builds the tree from events.
class JsonTreeBuilder {
 public:
  void null(const JsonPath&) { put(Json()); }
  void boolean(const JsonPath&, bool v) { put(Json(v)); }
  void number(const JsonPath&, JsonNumber v) { put(Json(v)); }
  void string(const JsonPath&, std::string v) { put(Json(std::move(v))); }
  void key(const JsonPath&, std::string v) { keys_.back() = std::move(v); }
  void begin_object(const JsonPath&) { open(Json::Object()); }
  void begin_array(const JsonPath&) { open(Json::Array()); }
  void end_object(const JsonPath&) { close(); }
  void end_array(const JsonPath&) { close(); }
  Json take() { return std::move(root_); }

 private:
  template <class Container>
  void open(Container empty) {
    open_.emplace_back(std::move(empty));
    keys_.emplace_back();
  }
  void close() {
    Json done = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    put(std::move(done));
  }
  void put(Json v) {
    if (open_.empty()) {
      root_ = std::move(v);
    } else if (Json::Array* array = open_.back().if_array()) {
      array->push_back(std::move(v));
    } else {
      open_.back().if_object()->keys.push_back(std::move(keys_.back()));
      open_.back().if_object()->values.push_back(std::move(v));
    }
  }
  Json root_;
  std::vector<Json> open_;  // the path to the value being built; depth is limited by the parser
  std::vector<std::string> keys_;
};

}  // namespace detail

/// A parsed JSON text and its name.
struct JsonDocument {
  Json root = {};
  std::string file = {};

  JsonView view() const { return {root, file}; }
};

/// Parses a JSON text. \throws as parse_json_events.
inline JsonDocument parse_json(std::string_view text, std::string file,
                               const JsonLimits& limits = {}) {
  JsonDocument out;
  out.file = std::move(file);
  detail::JsonTreeBuilder builder;
  parse_json_events(text, out.file, limits, builder);
  out.root = builder.take();
  return out;
}

/// Reads and parses a whole source of at most limits.max_bytes.
template <ByteSource S>
JsonDocument read_json(const S& source, const JsonLimits& limits = {}) {
  return parse_json(read_text(source, limits.max_bytes), source.name(), limits);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
