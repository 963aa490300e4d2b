//! The rules by which shapes follow from facts.

use super::config::Part;
use super::facts::{Facts, Width};
use super::names::{self, ATTENTIONS, Attention, MLPS, Mlp};
use super::paths::scope_of;
use super::{MOST_NAME, MOST_PARTS, MOST_STEPS, Size};
use crate::format::names::{ends_with, is_number};
use crate::format::tensor::{ShapeSource, TensorData};
use safetensors::Dtype;

/// Returns sizes of a part of the config.
type Dims = fn(&Part) -> &[Size];

/// The shape that a rule gives: rows and columns.
type Shape = Option<[Size; 2]>;

impl<'a> Facts<'a> {
    /// Returns the shape of a tensor without one, if it is certain.
    pub(super) fn shape_of(&self, tensor: &'a TensorData) -> Option<[u64; 2]> {
        let module = tensor.name.strip_suffix(".weight")?;
        let looked_at = tensor.shape_from == ShapeSource::Unknown
            && tensor.dtype == Dtype::BF16
            && module.len() <= MOST_NAME
            && module.split('.').count() <= MOST_PARTS
            && !holds_all_experts(module);
        let n = tensor.bytes / 2;
        if !looked_at || n == 0 || self.steps.get() > MOST_STEPS {
            return None;
        }
        let derived = self.by_bias(module, n).and(|| self.by_width(module, n)).found()?;
        let shape = [u64::try_from(derived[0]).ok()?, u64::try_from(derived[1]).ok()?];
        (shape[0].checked_mul(shape[1]) == Some(n)).then_some(shape)
    }

    /// The output dimension from the module's own bias.
    fn by_bias(&self, module: &'a str, n: u64) -> Verdict {
        if !self.is_matrix(module) {
            return Verdict::Open;
        }
        let Some(out) = self.length(&format!("{module}.bias")) else { return Verdict::Open };
        let columns = n / out;
        if !n.is_multiple_of(out) || columns < 2 {
            return Verdict::Contradiction;
        }
        // In a block of a known width, that must be one of the two dimensions.
        let (reads, writes) = (reader(module), self.writer(module));
        if let Some(scope) = reads.or(writes)
            && let (Width::Certain(h), _) = self.width(scope)
            && !is_cross(scope)
            && h != if reads.is_some() { columns } else { out }
        {
            return Verdict::Contradiction;
        }
        Verdict::Found([out.into(), columns.into()])
    }

    /// Tells whether a module with a bias is certainly a matrix.
    fn is_matrix(&self, module: &'a str) -> bool {
        let in_block = |suffix: &&str| {
            let scope = module.strip_suffix(*suffix).filter(|scope| scope.is_empty() || scope.ends_with('.'));
            scope.is_some_and(|scope| !self.is_convolutional(scope))
        };
        let (parent, leaf) = module.rsplit_once('.').unwrap_or(("", module));
        names::BIASED.iter().any(|suffix| ends_with(module, suffix))
            || names::BIASED_UNLESS_CONVOLUTIONAL.iter().any(in_block)
            || names::BIASED_IN.iter().any(|(list, name)| {
                let block = scope_of(module, name).and_then(|block| block.rsplit_once('.'));
                block.is_some_and(|(blocks, number)| is_number(number) && ends_with(blocks, list))
            })
            || matches!(leaf, "fc1" | "fc2") && self.count(parent, "self_attn.q_proj").is_some()
    }

    /// Returns the scope of a module that writes the residual stream.
    fn writer(&self, module: &'a str) -> Option<&'a str> {
        let attention = |a: &Attention| {
            let scope = a.out.iter().find_map(|leaf| scope_of(module, leaf))?;
            self.attends(a, scope).then_some(scope)
        };
        let mlp = |m: &Mlp| {
            let scope = scope_of(module, m.writer)?;
            m.readers.iter().any(|(leaf, _)| self.count(scope, leaf).is_some()).then_some(scope)
        };
        ATTENTIONS.iter().find_map(attention).or_else(|| MLPS.iter().find_map(mlp))
    }

    /// Tells whether a module is an attention of these names: it has queries.
    fn attends(&self, names: &Attention, scope: &str) -> bool {
        let mut leaves = names.qkv.iter().chain([&names.q, &"q_b_proj"]);
        leaves.any(|leaf| self.count(scope, leaf).is_some())
    }

    /// Both dimensions from the width of the residual stream, and what else is known.
    fn by_width(&self, module: &'a str, n: u64) -> Verdict {
        let rules = [
            Self::attention,
            Self::mlp,
            Self::latent_attention,
            Self::linear_attention,
            Self::state_space,
            Self::router,
        ];
        let found =
            rules.iter().find_map(|rule| rule(self, module, n.into())).or_else(|| self.vocabulary(module, n.into()));
        found.map_or(Verdict::Open, Verdict::Found)
    }

    /// Queries, keys, values and the output of an attention.
    fn attention(&self, module: &'a str, n: Size) -> Shape {
        ATTENTIONS.iter().find_map(|names| {
            let split = |leaf| scope_of(module, leaf);
            if let Some(scope) = split(names.q) {
                return self.one_width(scope, |h| self.query(names, scope, n, h), true);
            }
            if let Some(scope) = split(names.k).or_else(|| split(names.v)) {
                return self.one_width(scope, |h| self.key_or_value(names, scope, n, h), true);
            }
            if let Some(scope) = names.qkv.iter().find_map(|leaf| split(leaf)) {
                return self.one_width(scope, |h| self.fused_qkv(names, scope, n, h), true);
            }
            let scope = names.out.iter().find_map(|leaf| split(leaf))?;
            self.one_width(scope, |h| self.output(names, scope, n, h), false)
        })
    }

    /// Tries a rule at every width of a scope; the answer must be one. The rule returns the other dimension.
    fn one_width(&self, scope: &'a str, rule: impl Fn(Size) -> Option<Size>, reads: bool) -> Shape {
        let mut found: Shape = None;
        for h in self.widths(scope) {
            let Some(other) = rule(h) else { continue };
            let shape = if reads { [other, h] } else { [h, other] };
            if found.is_some_and(|before| before != shape) {
                return None;
            }
            found = Some(shape);
        }
        found
    }

    /// Returns the head dimensions that an attention of `heads` heads may have by this part of the config.
    fn head_dims(&self, part: &Part, heads: Size, h: Size, scope: &str) -> Vec<Size> {
        let mut dims = part.head_dims.clone();
        if dims.is_empty() && heads > 0 && h.is_multiple_of(heads) {
            dims.push(h / heads);
        }
        self.spend(16 + dims.len() * part.key_heads.len());
        dims.extend(
            names::QK_NORMS.iter().filter_map(|norm| self.length(&format!("{scope}.{norm}.weight"))).map(Size::from),
        );
        dims
    }

    /// Tells whether an inner width is heads × head dimension, by the config.
    fn is_heads(&self, inner: Size, h: Size, scope: &str, values: bool) -> bool {
        self.parts_of(h).any(|part| {
            part.heads.iter().any(|&heads| {
                let mut dims = self.head_dims(part, heads, h, scope);
                if values {
                    dims.extend(&part.value_dims);
                }
                dims.iter().any(|&d| heads.checked_mul(d) == Some(inner))
            })
        })
    }

    /// Tells whether the config has heads for this width, so that they must fit.
    fn has_heads(&self, h: Size) -> bool {
        self.parts_of(h).any(|part| !part.heads.is_empty())
    }

    fn query(&self, names: &Attention, scope: &'a str, n: Size, h: Size) -> Option<Size> {
        let q = exact(n, h)?;
        let out = names.out.iter().find_map(|leaf| self.count(scope, leaf)).map(Size::from);
        if self.has_heads(h) {
            if self.is_heads(q, h, scope, false) {
                return Some(q);
            }
            // A query that also has a gate: output and keys must then be as the config says.
            let plain = exact(q, 2).filter(|&plain| self.is_heads(plain, h, scope, false))?;
            let keys = self.count(scope, names.k)?;
            return (out == plain.checked_mul(h) && self.is_key(exact(keys.into(), h)?, h, scope)).then_some(q);
        }
        (self.may_compare(scope) && out == Some(n)).then_some(q)
    }

    /// Tells whether a width is key-value heads × head dimension, by the config.
    fn is_key(&self, width: Size, h: Size, scope: &str) -> bool {
        self.parts_of(h).any(|part| {
            part.heads.iter().any(|&heads| {
                let dims = self.head_dims(part, heads, h, scope);
                part.key_heads.iter().any(|kv| dims.iter().any(|&d| kv.checked_mul(d) == Some(width)))
            })
        })
    }

    fn key_or_value(&self, names: &Attention, scope: &'a str, n: Size, h: Size) -> Option<Size> {
        if is_cross(scope) {
            return None;
        }
        let k = exact(n, h)?;
        if self.is_key(k, h, scope) {
            return Some(k);
        }
        // The keys and values of self-attention read what its queries read.
        let (_, last) = scope.rsplit_once('.').unwrap_or(("", scope));
        if !names::SELF_ATTENTIONS.contains(&last) {
            return None;
        }
        let q = self.query(names, scope, self.count(scope, names.q)?.into(), h)?;
        let (keys, values) = (self.count(scope, names.k)?, self.count(scope, names.v)?);
        (keys == values && q.is_multiple_of(k)).then_some(k)
    }

    fn output(&self, names: &Attention, scope: &'a str, n: Size, h: Size) -> Option<Size> {
        let inner = exact(n, h).filter(|_| self.attends(names, scope))?;
        if self.has_heads(h) {
            return self.is_heads(inner, h, scope, true).then_some(inner);
        }
        let same = self.count(scope, names.q).map(Size::from) == Some(n);
        let fused = names.qkv.iter().any(|leaf| self.count(scope, leaf).map(Size::from) == n.checked_mul(3));
        (self.may_compare(scope) && (same || fused)).then_some(inner)
    }

    fn fused_qkv(&self, names: &Attention, scope: &'a str, n: Size, h: Size) -> Option<Size> {
        let rows = exact(n, h)?;
        let out = names.out.iter().find_map(|leaf| self.count(scope, leaf)).map(Size::from);
        if self.has_heads(h) {
            let fits = self.parts_of(h).any(|part| {
                part.heads.iter().any(|&heads| {
                    let mut dims = self.head_dims(part, heads, h, scope);
                    dims.extend(out.and_then(|n| exact(exact(n, h)?, heads)));
                    part.key_heads.iter().any(|&kv| {
                        // Two 64-bit numbers at most, thrice.
                        let all = heads + 2 * kv;
                        dims.iter().any(|&d| all.checked_mul(d) == Some(rows))
                    })
                })
            });
            return fits.then_some(rows);
        }
        (self.may_compare(scope) && out.and_then(|n| n.checked_mul(3)) == Some(n)).then_some(rows)
    }

    /// The matrices of an MLP, and of an expert.
    fn mlp(&self, module: &'a str, n: Size) -> Shape {
        MLPS.iter().find_map(|names| {
            let reads = names.readers.iter().find_map(|&(leaf, times)| Some((scope_of(module, leaf)?, times)));
            if let Some((scope, times)) = reads {
                return self.one_width(scope, |h| self.inner(names, scope, n, h, Some(times)), true);
            }
            let scope = scope_of(module, names.writer)?;
            self.one_width(scope, |h| self.inner(names, scope, n, h, None), false)
        })
    }

    /// Returns the dimension of an MLP's matrix that is not `h`. `times` says of a reader by how much its output may exceed
    /// the inner width.
    fn inner(&self, names: &Mlp, scope: &'a str, n: Size, h: Size, times: Option<&[Size]>) -> Option<Size> {
        let (_, last) = scope.rsplit_once('.').unwrap_or(("", scope));
        let strange = names.without.iter().any(|leaf| self.count(scope, leaf).is_some());
        if strange || !names.within.is_empty() && !names.within.contains(&last) {
            return None;
        }
        let expert = scope.split('.').any(|part| part.contains("expert"));
        if expert && self.parts.all().any(|part| part.latent_experts) {
            return None;
        }
        let other = exact(n, h)?;
        let mut known = false;
        for part in self.parts_of(h) {
            for &inner in &part.inner_widths {
                known = true;
                if times.unwrap_or(&[1]).iter().any(|&t| inner.checked_mul(t) == Some(other)) {
                    return Some(other);
                }
            }
        }
        if known || expert || !self.may_compare(scope) {
            return None;
        }
        let written = self.count(scope, names.writer).map(Size::from)?;
        let fits = |&(leaf, times): &(&str, &[Size])| {
            let read = self.count(scope, leaf).map(Size::from);
            read.map(|read| times.iter().any(|&t| written.checked_mul(t) == Some(read)))
        };
        let mut readers = names.readers.iter().filter_map(fits).peekable();
        (readers.peek().is_some() && readers.all(|fits| fits)).then_some(other)
    }

    /// The low-rank matrices of multi-head latent attention, between which there are norms.
    fn latent_attention(&self, module: &'a str, n: Size) -> Shape {
        let norm = |scope: &str, leaf: &str| self.length(&format!("{scope}.{leaf}.weight")).map(Size::from);
        let is_heads = |scope: &'a str, rows: Size, second: Dims| {
            self.widths(scope).into_iter().flat_map(|h| self.parts_of(h)).any(|part| {
                part.heads.iter().any(|heads| {
                    let dims = part.nope_dims.iter().flat_map(|nope| second(part).iter().map(move |b| nope + b));
                    dims.map(|d| heads.checked_mul(d)).any(|all| all == Some(rows))
                })
            })
        };
        if let Some(scope) = scope_of(module, "q_a_proj") {
            let rank = norm(scope, "q_a_layernorm")?;
            return self.one_width(scope, |h| (exact(n, h)? == rank).then_some(rank), true);
        }
        if let Some(scope) = scope_of(module, "kv_a_proj_with_mqa") {
            let rank = norm(scope, "kv_a_layernorm")?;
            let rule = |h| {
                let rows = exact(n, h)?;
                let mut ropes = self.parts_of(h).flat_map(|part| &part.rope_dims);
                ropes.any(|rope| rope + rank == rows).then_some(rows)
            };
            return self.one_width(scope, rule, true);
        }
        let second = |leaf, before, dims: Dims| {
            let scope = scope_of(module, leaf)?;
            let rank = norm(scope, before)?;
            let rows = exact(n, rank)?;
            is_heads(scope, rows, dims).then_some([rows, rank])
        };
        second("q_b_proj", "q_a_layernorm", |part| &part.rope_dims)
            .or_else(|| second("kv_b_proj", "kv_a_layernorm", |part| &part.value_dims))
    }

    /// Gated delta networks, whose sizes are in the config.
    fn linear_attention(&self, module: &'a str, n: Size) -> Shape {
        let (scope, leaf) = module.rsplit_once('.')?;
        if !ends_with(scope, "linear_attn") {
            return None;
        }
        let rule = |h: Size| {
            let other = exact(n, h)?;
            let fits = |part: &Part| {
                let [key_heads, value_heads, key_dim, value_dim] = part.delta?;
                let (keys, values) = (key_heads.checked_mul(key_dim)?, value_heads.checked_mul(value_dim)?);
                match leaf {
                    "in_proj_qkvz" => keys.checked_add(values)?.checked_mul(2),
                    "in_proj_qkv" => keys.checked_mul(2)?.checked_add(values),
                    "in_proj_z" | "out_proj" => Some(values),
                    "in_proj_ba" => value_heads.checked_mul(2),
                    "in_proj_b" | "in_proj_a" => Some(value_heads),
                    _ => None,
                }
            };
            self.parts_of(h).any(|part| fits(part) == Some(other)).then_some(other)
        };
        self.one_width(scope, rule, leaf != "out_proj")
    }

    /// State spaces and short convolutions, by the vectors between the two matrices.
    fn state_space(&self, module: &'a str, n: Size) -> Shape {
        let (scope, leaf) = module.rsplit_once('.')?;
        if !matches!(leaf, "in_proj" | "out_proj") {
            return None;
        }
        let (into, out) = (Size::from(self.count(scope, "in_proj")?), Size::from(self.count(scope, "out_proj")?));
        let vector = |name: &str| self.length(&format!("{scope}.{name}")).map(Size::from);
        let channels = |name: &str| self.rows(&format!("{scope}.{name}")).map(Size::from);
        let rule = |h: Size| {
            let (into, out) = (exact(into, h)?, exact(out, h)?);
            let fits = if let Some(channels) = channels("conv.weight") {
                // A gated short convolution.
                out == channels && channels.checked_mul(3) == Some(into)
            } else {
                let channels = channels("conv1d.weight").or_else(|| vector("conv1d.bias"))?;
                match vector("A_log").or_else(|| vector("dt_bias")) {
                    Some(heads) => channels.checked_add(heads)?.checked_add(out) == Some(into),
                    None => vector("D") == Some(out) && channels == out && out.checked_mul(2) == Some(into),
                }
            };
            fits.then_some(if leaf == "in_proj" { into } else { out })
        };
        debug_assert!(n == into || n == out);
        self.one_width(scope, rule, leaf == "in_proj")
    }

    /// The matrix that chooses experts.
    fn router(&self, module: &'a str, n: Size) -> Shape {
        let scope = names::ROUTERS.iter().find(|suffix| ends_with(module, suffix)).and(module.rsplit_once('.'))?.0;
        let rule = |h| {
            let experts = exact(n, h)?;
            self.parts_of(h).any(|part| part.experts.contains(&experts)).then_some(experts)
        };
        self.one_width(scope, rule, true)
    }

    /// Embeddings of a vocabulary, and heads.
    fn vocabulary(&self, module: &'a str, n: Size) -> Shape {
        let (parent, leaf) = module.rsplit_once('.').unwrap_or(("", module));
        let narrow = self.parts.all().any(|part| part.narrow_embeddings);
        if !names::EMBEDDINGS.contains(&leaf) && !names::HEADS.contains(&leaf) || narrow {
            return None;
        }
        let normed = |h: Size| self.normed.is_empty() || u64::try_from(h).is_ok_and(|h| self.normed.contains(&h));
        let mut found: Shape = None;
        let mut known = false;
        for part in self.parts.all() {
            for &h in part.widths.iter().filter(|&&h| normed(h)) {
                self.spend(part.vocabularies.len());
                for &words in &part.vocabularies {
                    known = true;
                    if words.checked_mul(h) != Some(n) {
                        continue;
                    }
                    if found.is_some_and(|before| before != [words, h]) {
                        return None;
                    }
                    found = Some([words, h]);
                }
            }
        }
        if found.is_some() || known || !names::USUAL_VOCABULARIES.contains(&leaf) {
            return found;
        }
        // Without the size of the vocabulary: the final norm is next to the head, and the embedding starts the stream that it
        // ends. The config says as much, or the blocks do, where there is no matrix in between.
        let towers = if names::HEADS.contains(&leaf) { names::TOWERS } else { &[""] };
        let join = |tower: &&str| match (parent, *tower) {
            ("", tower) => tower.to_owned(),
            (parent, "") => parent.to_owned(),
            (parent, tower) => format!("{parent}.{tower}"),
        };
        let mut norms = towers.iter().map(join).filter_map(|tower| Some((self.finals.get(&tower[..])?, tower)));
        let (Some((norm, tower)), None) = (norms.next(), norms.next()) else { return None };
        let of_blocks = self.towers.get(&tower[..]).filter(|norms| norms.count >= 2 && self.plain_stream);
        match (self.weigh(norm, of_blocks), of_blocks.is_some() || self.parts.has_width()) {
            (Width::Certain(h), true) => Some([exact(n, h.into())?, h.into()]),
            _ => None,
        }
    }
}

/// The answer of the rules of one kind.
enum Verdict {
    Open,
    Found([Size; 2]),
    Contradiction,
}

impl Verdict {
    /// Joins the answer of another rule: both must agree.
    fn and(self, other: impl FnOnce() -> Verdict) -> Verdict {
        match (self, other()) {
            (Verdict::Contradiction, _) | (_, Verdict::Contradiction) => Verdict::Contradiction,
            (Verdict::Open, other) => other,
            (this, Verdict::Open) => this,
            (Verdict::Found(a), Verdict::Found(b)) if a == b => Verdict::Found(a),
            _ => Verdict::Contradiction,
        }
    }

    fn found(self) -> Shape {
        match self {
            Verdict::Found(shape) => Some(shape),
            _ => None,
        }
    }
}

/// Divides without a remainder. The answer is at least 1.
fn exact(n: Size, by: Size) -> Option<Size> {
    (by > 0 && n >= by && n.is_multiple_of(by)).then(|| n / by)
}

/// Tells whether one tensor holds the matrices of all experts: it then has three dimensions.
fn holds_all_experts(module: &str) -> bool {
    let mut parts = module.split('.').peekable();
    while let Some(part) = parts.next() {
        if part == "experts" && !parts.peek().is_some_and(|next| is_number(next)) {
            return true;
        }
    }
    false
}

/// Tells whether an attention's keys and values come from another stream.
fn is_cross(scope: &str) -> bool {
    let last = scope.rsplit('.').next().unwrap_or(scope);
    last.contains("cross") || matches!(last, "attn2" | "EncDecAttention" | "encoder_attn" | "encoder_decoder_attention")
}

/// Returns the scope of a module that reads the residual stream.
fn reader(module: &str) -> Option<&str> {
    let attention = |a: &Attention| [a.q, a.k, a.v].iter().chain(a.qkv).find_map(|leaf| scope_of(module, leaf));
    let mlp = |m: &Mlp| m.readers.iter().find_map(|(leaf, _)| scope_of(module, leaf));
    ATTENTIONS.iter().find_map(attention).or_else(|| MLPS.iter().find_map(mlp))
}
