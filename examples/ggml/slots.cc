// See slots.h.
#include "slots.h"

#include <algorithm>

namespace example {

Plant plant_named(const std::string &name) {
    if (name == "slot") return Plant::slot;
    if (name == "decode") return Plant::decode;
    if (name == "early") return Plant::early;
    if (name == "wait") return Plant::wait;
    throw std::runtime_error("no mistake is called " + name + ": slot, decode, early or wait");
}

Step layer_step(const Model &model, const std::vector<Tensor> &tensors, int64_t layer) {
    uint64_t group = DF11_NO_GROUP;
    for (const Tensor &tensor : tensors) {
        uint64_t number;
        if (layer_of(tensor.name) != layer || tensor.type != GGML_TYPE_BF16) continue;
        if (!model.find(hugging_face_name(tensor.name), number))
            throw std::runtime_error("the model has no " + tensor.name);
        uint64_t its = model.tensor(number).group;
        if (its == DF11_NO_GROUP || (group != DF11_NO_GROUP && its != group))
            throw std::runtime_error(tensor.name + " is not in one group with the rest of its layer");
        group = its;
    }
    if (group == DF11_NO_GROUP) throw std::runtime_error("the model has no layer " + std::to_string(layer));
    return {group, 0, model.group(group).element_count};
}

HostDecoder::HostDecoder(const Model &model, std::array<void *, 2> slots, size_t slot_bytes, unsigned threads)
    : model_(model), slots_(slots), slot_bytes_(slot_bytes), threads_(threads) {}

void HostDecoder::begin(const Step &step, size_t slot) {
    // A step that fails says so where it is waited for.
    pending_[slot] = std::async(std::launch::async, [this, step, slot] {
        Error e;
        e.check(df11_model_decompress(model_.handle(), step.group, step.first, step.count, slots_[slot], slot_bytes_,
                                     threads_, &e));
    });
}

void HostDecoder::wait(size_t slot) {
    if (pending_[slot].valid()) pending_[slot].get();
}

Slots::Slots(Decoder &decoder, std::vector<Step> steps, Plant plant)
    : decoder_(decoder), steps_(std::move(steps)), plant_(plant) {
    for (size_t step = 0; step < std::min<size_t>(2, steps_.size()); step++) decode(step);
}

Slots::~Slots() {
    for (size_t slot = 0; slot < 2; slot++) {
        try {
            decoder_.wait(slot);
        } catch (...) {
            // Nobody waits for this step.
        }
    }
}

void Slots::decode(size_t step) {
    if (plant_ == Plant::decode && step == 2) return;
    decoder_.begin(steps_.at(step), plant_ == Plant::slot && step == 2 ? 1 : step % 2);
    decoded_bytes_ += 2 * steps_[step].count;
}

void Slots::acquire(size_t step) {
    if (plant_ != Plant::wait) decoder_.wait(step % 2);
    if (plant_ == Plant::early && next(step) != step) {
        decode(next(step));
        decoder_.wait(step % 2);
    }
}

void Slots::release(size_t step) {
    // If a slot has one step only, it need not be decoded again.
    if (next(step) != step) decode(next(step));
}

}  // namespace example
