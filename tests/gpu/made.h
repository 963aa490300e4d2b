/*
 * Generated weights like a language model's, compressed in memory: the GPU's tests and benchmark decode them in addition to
 * the bundled models, which are small. Both programs call the library through OK().
 */
#ifndef MADE_H
#define MADE_H

#include "df11.h"

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes a call of the library, whose last argument is `&e_`; prints and ends the program if it fails. */
#define OK(call)                                                                                                      \
    do {                                                                                                              \
        df11_error e_ = {0};                                                                                          \
        df11_status s_ = (call);                                                                                      \
        if (s_ != DF11_OK) {                                                                                          \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, df11_status_name(s_), e_.message);      \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

/* A group of one module "made" with three tensors, its weights, and the model that holds it. */
typedef struct {
    uint64_t count;
    uint16_t *weights;
    uint64_t tensors[3];
    void *file;
    df11_packed_group packed; /* addresses within `file` */
    df11_model *model;
} made;

static uint64_t made_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

enum { MADE_ROW = 4096, MADE_SPREADS = 32, MADE_DRAWS = 65536 };

/*
 * bf16 bits whose exponents spread as a trained layer's do (about 2.65 bits per code): normally distributed in rows of
 * 4,096 weights whose own deviations spread by 0.27 around 0.02 on a logarithmic scale. Signs and mantissas are uniformly
 * random, which is what a decoder may expect of them.
 */
static void made_weights(uint16_t *out, uint64_t count, uint64_t seed)
{
    static uint8_t exponents[MADE_SPREADS][MADE_DRAWS];
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1, i = 0;
    for (int s = 0; s < MADE_SPREADS; s++) {
        /* the middle of each of as many equally likely parts of a normal distribution, approximated by a logistic one */
        double p = (s + 0.5) / MADE_SPREADS, z = log(p / (1 - p)) / 1.702, sigma = 0.02 * exp(0.27 * z);
        int exponent = 60;
        for (int d = 0; d < MADE_DRAWS; d++) {
            /* the share of weights whose magnitude is below 2^(exponent - 126) */
            while (erf(ldexp(1.0, exponent - 126) / (sigma * sqrt(2.0))) * MADE_DRAWS <= d + 0.5 && exponent < 200)
                exponent++;
            exponents[s][d] = (uint8_t)exponent;
        }
    }
    while (i < count) {
        const uint8_t *row = exponents[made_next(&state) >> 59];
        uint64_t end = i + MADE_ROW < count ? i + MADE_ROW : count;
        for (; i < end; i++) {
            uint64_t r = made_next(&state);
            uint32_t draw = (uint32_t)(r >> 32) & (MADE_DRAWS - 1), exponent = row[draw];
            if (draw == 0) /* the smallest: each exponent below is half as likely */
                for (r >>= 48; (r & 1) && exponent > 0; r >>= 1)
                    exponent--;
            out[i] = (uint16_t)((r & 0x80) << 8 | exponent << 7 | (made_next(&state) >> 57));
        }
    }
}

static void made_free(made *m)
{
    df11_model_free(m->model);
    free(m->weights);
    free(m->file);
    memset(m, 0, sizeof(*m));
}

/* Compresses `m->weights` with `threads` threads and opens the result. 0 after an error, which is printed. */
static int made_compress(made *m, uint32_t threads)
{
    const void *tensors[3];
    df11_error error = {0};
    df11_packed_group *p = &m->packed;
    uint64_t first = 0, at = 0;
    *p = (df11_packed_group)DF11_PACKED_GROUP_INIT;
    for (int t = 0; t < 3; t++) {
        tensors[t] = m->weights + first;
        first += m->tensors[t];
    }
    if (df11_compress_group(tensors, m->tensors, 3, threads, p, &error) != DF11_OK) {
        fprintf(stderr, "compressing: %s\n", error.message);
        return 0;
    }
    const char *names[6] = {"luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"};
    size_t bytes[6] = {p->luts_bytes, p->encoded_exponent_bytes, p->sign_mantissa_bytes, p->output_positions_bytes,
                       p->gaps_bytes, p->split_positions_bytes};
    void **addresses[6] = {&p->luts,     &p->encoded_exponent, &p->sign_mantissa, &p->output_positions,
                           &p->gaps,     &p->split_positions};
    uint64_t offsets[6];
    char header[2048];
    int length = snprintf(header, sizeof(header), "{");
    for (int i = 0; i < 6; i++) {
        char shape[64];
        offsets[i] = at;
        if (i == 0)
            snprintf(shape, sizeof(shape), "%zu,256", bytes[i] / 256);
        else
            snprintf(shape, sizeof(shape), "%zu", i == 5 ? bytes[i] / 8 : bytes[i]);
        length += snprintf(header + length, sizeof(header) - (size_t)length,
                           "%s\"made.%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                           i ? "," : "", names[i], i == 5 ? "I64" : "U8", shape, at, at + bytes[i]);
        at += bytes[i];
    }
    length += snprintf(header + length, sizeof(header) - (size_t)length, "}");
    while (length % 8)
        header[length++] = ' ';
    m->file = malloc(8 + (size_t)length + at);
    if (m->file == NULL) {
        fprintf(stderr, "no memory for %" PRIu64 " bytes\n", at);
        return 0;
    }
    for (int i = 0; i < 8; i++)
        ((uint8_t *)m->file)[i] = (uint8_t)((uint64_t)length >> 8 * i);
    memcpy((char *)m->file + 8, header, (size_t)length);
    for (int i = 0; i < 6; i++)
        *addresses[i] = (char *)m->file + 8 + length + offsets[i];
    if (df11_compress_group(tensors, m->tensors, 3, threads, p, &error) != DF11_OK ||
        df11_model_open_memory(m->file, 8 + (size_t)length + at, NULL, &m->model, &error) != DF11_OK) {
        fprintf(stderr, "compressing: %s\n", error.message);
        return 0;
    }
    return 1;
}

/* So many weights in three tensors, compressed. 0 after an error, which is printed. */
static int made_new(made *m, uint64_t count, uint64_t seed, uint32_t threads)
{
    memset(m, 0, sizeof(*m));
    m->count = count;
    m->tensors[0] = count / 2;
    m->tensors[1] = count / 4;
    m->tensors[2] = count - m->tensors[0] - m->tensors[1];
    m->weights = malloc(2 * (size_t)count);
    if (m->weights == NULL) {
        fprintf(stderr, "no memory for %" PRIu64 " weights\n", count);
        return 0;
    }
    made_weights(m->weights, count, seed);
    if (made_compress(m, threads))
        return 1;
    made_free(m);
    return 0;
}

#endif
