//! The vector units that the peers' merge and split can use.

/// Outputs of at least this size are streamed past the caches, as those of libdf11 are.
pub(crate) const STREAMING_BYTES: usize = 4 << 20;

/// A kind of vectors, and whether stores are streamed past the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2 {
        stream: bool,
    },
    #[cfg(target_arch = "x86_64")]
    Avx512 {
        stream: bool,
    },
}

impl Kind {
    /// Returns the fastest kind that this processor can run.
    pub fn best(stream: bool) -> Kind {
        Kind::all(stream).pop().expect("the plain one runs everywhere")
    }

    /// Returns every kind that this processor can run, the fastest last.
    pub fn all(stream: bool) -> Vec<Kind> {
        let mut all = vec![Kind::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                all.push(Kind::Avx2 { stream });
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                all.push(Kind::Avx512 { stream });
            }
        }
        let _ = stream;
        all
    }

    /// Returns the name that tables use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 { .. } => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 { .. } => "avx512",
        }
    }
}
