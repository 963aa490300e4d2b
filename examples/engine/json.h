// Numbers, texts and flags of a JSON object, by their path: "head_dim", "rope_parameters.rope_theta". It reads what a
// config.json has; libdf11 has checked that before. Lists are skipped.
#ifndef DF11_EXAMPLE_ENGINE_JSON_H
#define DF11_EXAMPLE_ENGINE_JSON_H

#include <cstddef>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace engine {

class Json {
  public:
    explicit Json(std::string_view text) : text_(text) { value("", true, 0); }

    // Returns the text of a number, a string or a flag. There is none if it is missing or null.
    std::optional<std::string> find(const std::string &path) const {
        const auto found = values_.find(path);
        return found == values_.end() || found->second == "null" ? std::nullopt : std::optional(found->second);
    }

  private:
    char peek() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) at_++;
        if (at_ == text_.size()) throw std::runtime_error("config.json ends early");
        return text_[at_];
    }
    bool take(char wanted) {
        if (peek() != wanted) return false;
        at_++;
        return true;
    }
    void need(char wanted) {
        if (!take(wanted)) throw std::runtime_error("config.json is no JSON at byte " + std::to_string(at_));
    }
    std::string string() {
        std::string all;
        need('"');
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\') at_++;
            if (at_ < text_.size()) all += text_[at_++];
        }
        at_++;
        return all;
    }
    void value(const std::string &path, bool keep, int depth) {
        if (depth > 64) throw std::runtime_error("config.json is nested too deeply");
        if (take('{')) {
            if (take('}')) return;
            do {
                const std::string name = (peek(), string());
                need(':');
                value(path.empty() ? name : path + "." + name, keep, depth + 1);
            } while (take(','));
            need('}');
        } else if (take('[')) {
            if (take(']')) return;
            do value(path, false, depth + 1);
            while (take(','));
            need(']');
        } else {
            std::string text;
            if (peek() == '"') {
                text = string();
            } else {
                while (at_ < text_.size() && std::string_view(",]} \t\r\n").find(text_[at_]) == text_.npos)
                    text += text_[at_++];
            }
            if (keep) values_[path] = text;
        }
    }

    std::string_view text_;
    std::size_t at_ = 0;
    std::map<std::string, std::string> values_;
};

}  // namespace engine

#endif
