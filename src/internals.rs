//! Items for this repository's tests, benchmarks and fuzz targets. None of them is promised to exist in the next version.

/// The C ABI, as Rust functions.
#[cfg(all(feature = "cuda", feature = "writer"))]
pub mod capi {
    pub use crate::capi::*;
}

/// The modules below the public CUDA types.
#[cfg(feature = "cuda")]
pub mod cuda {
    pub use crate::cuda::*;

    pub mod device {
        pub use crate::cuda::device::*;
    }
    pub mod driver {
        pub use crate::cuda::driver::*;
    }
    pub mod image {
        pub use crate::cuda::image::*;

        pub mod linear {
            pub use crate::cuda::image::linear::*;
        }
    }
    pub mod kernels {
        pub use crate::cuda::kernels::*;
    }
    pub mod launch {
        pub use crate::cuda::launch::*;
    }
    pub mod multiply {
        pub use crate::cuda::multiply::*;
    }
    pub mod policy {
        pub use crate::cuda::policy::*;
    }
    pub mod resident {
        pub use crate::cuda::resident::*;
    }
    pub mod upload {
        pub use crate::cuda::upload::*;
    }
}

/// Files, members and configs.
pub mod format {
    pub use crate::format::*;

    /// Returns the code words of a group.
    pub fn codes<'m>(group: crate::Group<'m>) -> &'m crate::huffman::code::CodeTable {
        group.data().codes()
    }
}

/// Groups on the CPU.
pub mod host {
    pub use crate::host::*;
}

/// The coders.
pub mod huffman {
    pub use crate::huffman::*;
}

/// Matrices to multiply with.
pub mod matrix {
    pub use crate::matrix::*;
}

/// Plans and presets.
#[cfg(feature = "writer")]
pub mod writer {
    pub use crate::writer::*;

    pub mod plan {
        pub use crate::writer::plan::*;
    }
    pub mod presets {
        pub use crate::writer::presets::*;
    }
}
