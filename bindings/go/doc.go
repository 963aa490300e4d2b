// Package df11 decodes DFloat11 models: bf16 weights of large language models, kept at about 68 % of their size, bit for bit.
package df11
