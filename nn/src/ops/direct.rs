//! Convolution with 3x3 kernels, stride 1 and a border of one pixel, straight from the image.
//!
//! Laying out windows as a matrix costs more than the products themselves where channels are few. Here images are
//! copied once, with a border of zeros, one below the other into a tall plane a channel whose rows are one pixel wider
//! than the image: the border on the right of a row is the one on the left of the next. Every tap of the kernel is then
//! the plane at a fixed offset, and a block of outputs stays in registers over all channels and taps. The results at
//! border positions are dropped.

// Vector intrinsics need raw pointers. Every length that they rely on is asserted in the safe function that calls them,
// and their instruction set is checked at run time by `Simd::detect`.
#![allow(unsafe_code)]

/// Taps of a kernel.
const TAPS: usize = 9;

/// Positions of a plane that are worked on together.
const POSITIONS: usize = 600;

/// Positions of one block of the weights' gradient: their gradients fit into the nearest cache.
const BLOCK: usize = 128;

/// The instruction set that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Simd {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Simd {
    fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Some(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Some(Self::Avx2);
            }
        }
        None
    }

    /// Outputs of one block of registers.
    fn outputs(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 4,
        }
    }

    /// Positions of one block of registers.
    fn positions(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 48,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 24,
        }
    }

    /// Outputs of one block of registers of the weights' gradient.
    fn gradient_outputs(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 8,
        }
    }
}

/// The layout for images of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direct {
    simd: Simd,
    height: usize,
    width: usize,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    plane: Vec<f32>,
    outputs: Vec<f32>,
    transposed: Vec<f32>,
}

impl Direct {
    /// The layout for images of `height` x `width` pixels; `None` on a processor without the instructions.
    pub fn new(height: usize, width: usize) -> Option<Self> {
        Simd::detect().map(|simd| Self { simd, height, width })
    }

    /// Images that lie in one plane.
    pub fn group(&self) -> usize {
        POSITIONS.div_ceil((self.height + 1) * self.stride())
    }

    fn stride(&self) -> usize {
        self.width + 1
    }

    /// Where an image's rows start in the plane of outputs.
    fn row(&self, image: usize, y: usize) -> usize {
        (image * (self.height + 1) + y) * self.stride()
    }

    /// Positions of `images` images: all but the last border row.
    fn positions(&self, images: usize) -> usize {
        self.row(images, 0) - self.stride()
    }

    /// Numbers of an input plane, with room for reading whole blocks.
    fn plane(&self, images: usize) -> usize {
        self.row(images, 1) + self.stride() + 2 + self.simd.positions()
    }

    /// Copies images `[n, channels, H, W]` into planes, zeros around them.
    fn pad(&self, images: &[f32], channels: usize, planes: &mut Vec<f32>) {
        let pixels = self.height * self.width;
        let count = images.len() / (channels * pixels);
        let plane = self.plane(count);
        planes.clear();
        planes.resize(channels * plane, 0.0);
        for (i, image) in images.chunks_exact(channels * pixels).enumerate() {
            for (plane, image) in planes.chunks_exact_mut(plane).zip(image.chunks_exact(pixels)) {
                for (y, row) in image.chunks_exact(self.width).enumerate() {
                    plane[self.row(i, y + 1) + 1..][..self.width].copy_from_slice(row);
                }
            }
        }
    }

    /// Weights `[outputs, channels, 3, 3]` in blocks of outputs, `[blocks, channels, 3, 3, block]`.
    pub fn pack(&self, weight: &[f32], outputs: usize) -> Vec<f32> {
        let channels = weight.len() / (outputs * TAPS);
        self.packed(outputs, channels, |o, c, tap| weight[(o * channels + c) * TAPS + tap])
    }

    /// The weights of the convolution that takes gradients back: from `outputs` channels to the inputs, turned around.
    pub fn pack_transposed(&self, weight: &[f32], outputs: usize) -> Vec<f32> {
        let channels = weight.len() / (outputs * TAPS);
        self.packed(channels, outputs, |c, o, tap| weight[(o * channels + c) * TAPS + TAPS - 1 - tap])
    }

    fn packed(&self, outputs: usize, channels: usize, at: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
        let block = self.simd.outputs();
        let mut packed = vec![0.0; outputs.next_multiple_of(block) * channels * TAPS];
        for (b, rows) in packed.chunks_exact_mut(channels * TAPS * block).enumerate() {
            for (i, row) in rows.chunks_exact_mut(block).enumerate() {
                for (j, value) in row.iter_mut().enumerate().take(outputs - b * block) {
                    *value = at(b * block + j, i / TAPS, i % TAPS);
                }
            }
        }
        packed
    }

    /// Convolves images `x: [n, channels, H, W]` to `y: [n, outputs, H, W]`; `bias: [outputs]` is added, if any.
    pub fn convolve(
        &self,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        outputs: usize,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let pixels = self.height * self.width;
        let count = y.len() / (outputs * pixels);
        let channels = x.len() / (count * pixels);
        self.pad(x, channels, &mut scratch.plane);
        let (block, tile) = (self.simd.outputs(), self.simd.positions());
        let positions = self.positions(count).next_multiple_of(tile);
        let blocks = outputs.div_ceil(block);
        scratch.outputs.resize(blocks * block * positions, 0.0);
        let (planes, out) = (&scratch.plane[..], &mut scratch.outputs[..]);
        let (plane, stride) = (self.plane(count), self.stride());
        assert_eq!(planes.len(), channels * plane);
        assert_eq!(packed.len(), blocks * block * channels * TAPS);
        assert!(plane >= positions - tile + 2 * stride + 2 + tile, "taps of the last block lie in the plane");
        for n in (0..positions).step_by(tile) {
            for b in 0..blocks {
                let mut start = [0.0f32; 8];
                if let Some(bias) = bias {
                    let own = &bias[b * block..(b * block + block).min(outputs)];
                    start[..own.len()].copy_from_slice(own);
                }
                let weights = &packed[b * block * channels * TAPS..][..block * channels * TAPS];
                // SAFETY: the asserts bound the furthest read of a plane, `positions - tile + 2 stride + 2 + tile`, and
                // of the weights; `out` has `positions` numbers for each of `blocks * block` outputs. `Direct::new`
                // found the instruction set.
                unsafe {
                    let (x, w, out) =
                        (planes.as_ptr().add(n), weights.as_ptr(), out.as_mut_ptr().add(b * block * positions + n));
                    match self.simd {
                        #[cfg(target_arch = "x86_64")]
                        Simd::Avx512 => x86::tile_avx512(x, plane, stride, channels, w, &start, out, positions),
                        #[cfg(target_arch = "x86_64")]
                        Simd::Avx2 => x86::tile_avx2(x, plane, stride, channels, w, &start, out, positions),
                    }
                }
            }
        }
        for (i, image) in y.chunks_exact_mut(outputs * pixels).enumerate() {
            for (image, out) in image.chunks_exact_mut(pixels).zip(out.chunks_exact(positions)) {
                for (y, row) in image.chunks_exact_mut(self.width).enumerate() {
                    row.copy_from_slice(&out[self.row(i, y)..][..self.width]);
                }
            }
        }
    }

    /// Outputs of the weights' gradient, rounded up to whole blocks.
    pub fn gradient_width(&self, outputs: usize) -> usize {
        outputs.next_multiple_of(self.simd.gradient_outputs())
    }

    /// Adds the gradient of the weights, as `[channels, 3, 3, gradient_width]`, for images `x: [n, channels, H, W]` and
    /// gradients `g: [n, outputs, H, W]`.
    pub fn add_weight_gradient(&self, x: &[f32], g: &[f32], outputs: usize, dw: &mut [f32], scratch: &mut Scratch) {
        let pixels = self.height * self.width;
        let count = g.len() / (outputs * pixels);
        let channels = x.len() / (count * pixels);
        self.pad(x, channels, &mut scratch.plane);
        let width = self.gradient_width(outputs);
        let positions = self.positions(count);
        // Gradients position by position, zero on the border.
        let transposed = &mut scratch.transposed;
        transposed.clear();
        transposed.resize(positions * width, 0.0);
        for (i, image) in g.chunks_exact(outputs * pixels).enumerate() {
            for y in 0..self.height {
                let rows = &mut transposed[self.row(i, y) * width..][..self.width * width];
                for (x, row) in rows.chunks_exact_mut(width).enumerate() {
                    let at = y * self.width + x;
                    row.iter_mut().zip(image[at..].iter().step_by(pixels)).for_each(|(t, g)| *t = *g);
                }
            }
        }
        let (planes, plane, stride) = (&scratch.plane[..], self.plane(count), self.stride());
        let step = self.simd.gradient_outputs();
        assert_eq!((planes.len(), dw.len()), (channels * plane, channels * TAPS * width));
        assert!(plane >= positions + 2 * stride + 2, "taps of the last position lie in the plane");
        for first in (0..positions).step_by(BLOCK) {
            let count = BLOCK.min(positions - first);
            for o in (0..width).step_by(step) {
                for c in 0..channels {
                    // SAFETY: as above: reads end at `positions + 2 stride + 2` of plane `c`, at `positions * width` of
                    // the gradients and within `[TAPS, width]` of `dw`'s channel `c`.
                    unsafe {
                        let x = planes.as_ptr().add(c * plane + first);
                        let g = transposed.as_ptr().add(first * width + o);
                        let dw = dw.as_mut_ptr().add(c * TAPS * width + o);
                        match self.simd {
                            #[cfg(target_arch = "x86_64")]
                            Simd::Avx512 => x86::gradient_avx512(x, stride, g, count, width, dw),
                            #[cfg(target_arch = "x86_64")]
                            Simd::Avx2 => x86::gradient_avx2(x, stride, g, count, width, dw),
                        }
                    }
                }
            }
        }
    }

    /// The gradient that [`add_weight_gradient`](Self::add_weight_gradient) collected, as `[outputs, channels, 3, 3]`.
    pub fn unpack_gradient(&self, packed: &[f32], outputs: usize) -> Vec<f32> {
        let width = self.gradient_width(outputs);
        let taps = packed.len() / width;
        (0..outputs).flat_map(|o| (0..taps).map(move |tap| packed[tap * width + o])).collect()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::TAPS;

    /// A block of `$outputs` outputs times 3 vectors of positions over all channels and taps; and the gradient of a
    /// channel's weights for `$vectors` vectors of outputs over `count` positions.
    macro_rules! kernels {
        ($tile:ident, $gradient:ident, $feature:literal, $lanes:literal, $outputs:literal, $vectors:literal,
         $load:ident, $splat:ident, $fma:ident, $store:ident) => {
            #[target_feature(enable = $feature)]
            pub unsafe fn $tile(
                x: *const f32,
                plane: usize,
                stride: usize,
                channels: usize,
                mut w: *const f32,
                start: &[f32; 8],
                out: *mut f32,
                out_stride: usize,
            ) {
                // SAFETY: the caller vouches for the lengths behind all pointers.
                unsafe {
                    let mut sums = [[$splat(0.0); 3]; $outputs];
                    for o in 0..$outputs {
                        sums[o] = [$splat(start[o]); 3];
                    }
                    for c in 0..channels {
                        let x = x.add(c * plane);
                        for ky in 0..3 {
                            for kx in 0..3 {
                                let x = x.add(ky * stride + kx);
                                let x = [$load(x), $load(x.add($lanes)), $load(x.add(2 * $lanes))];
                                for o in 0..$outputs {
                                    let w = $splat(*w.add(o));
                                    for v in 0..3 {
                                        sums[o][v] = $fma(w, x[v], sums[o][v]);
                                    }
                                }
                                w = w.add($outputs);
                            }
                        }
                    }
                    for o in 0..$outputs {
                        for v in 0..3 {
                            $store(out.add(o * out_stride + v * $lanes), sums[o][v]);
                        }
                    }
                }
            }

            #[target_feature(enable = $feature)]
            pub unsafe fn $gradient(
                x: *const f32,
                stride: usize,
                g: *const f32,
                count: usize,
                width: usize,
                dw: *mut f32,
            ) {
                // SAFETY: the caller vouches for the lengths behind all pointers.
                unsafe {
                    let mut sums = [[$splat(0.0); $vectors]; TAPS];
                    for tap in 0..TAPS {
                        for v in 0..$vectors {
                            sums[tap][v] = $load(dw.add(tap * width + v * $lanes));
                        }
                    }
                    for n in 0..count {
                        let mut g_n = [$splat(0.0); $vectors];
                        for v in 0..$vectors {
                            g_n[v] = $load(g.add(n * width + v * $lanes));
                        }
                        for tap in 0..TAPS {
                            let x = $splat(*x.add(n + tap / 3 * stride + tap % 3));
                            for v in 0..$vectors {
                                sums[tap][v] = $fma(x, g_n[v], sums[tap][v]);
                            }
                        }
                    }
                    for tap in 0..TAPS {
                        for v in 0..$vectors {
                            $store(dw.add(tap * width + v * $lanes), sums[tap][v]);
                        }
                    }
                }
            }
        };
    }

    kernels!(
        tile_avx512,
        gradient_avx512,
        "avx512f",
        16,
        8,
        2,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps
    );
    kernels!(
        tile_avx2,
        gradient_avx2,
        "avx2,fma",
        8,
        4,
        1,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_storeu_ps
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each instruction set of this machine against the definition.
    #[test]
    fn convolves_and_takes_gradients_by_definition() {
        let Some(best) = Simd::detect() else { return };
        let mut sets = vec![best];
        #[cfg(target_arch = "x86_64")]
        if best == Simd::Avx512 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(Simd::Avx2);
        }
        let value = |i: usize, salt: usize| ((i * 7919 + salt * 131) % 41) as f32 / 8.0 - 2.5;
        for simd in sets {
            for (images, channels, outputs, height, width) in [(1, 1, 1, 1, 1), (3, 5, 9, 4, 6), (2, 16, 40, 13, 7)] {
                let direct = Direct { simd, height, width };
                let pixels = height * width;
                let x: Vec<f32> = (0..images * channels * pixels).map(|i| value(i, 1)).collect();
                let w: Vec<f32> = (0..outputs * channels * 9).map(|i| value(i, 2)).collect();
                let bias: Vec<f32> = (0..outputs).map(|i| value(i, 3)).collect();
                let g: Vec<f32> = (0..images * outputs * pixels).map(|i| value(i, 4)).collect();
                let (mut y, mut dx) = (vec![0.0f64; g.len()], vec![0.0f64; x.len()]);
                let mut dw = vec![0.0f64; w.len()];
                for (at, y) in y.iter_mut().enumerate() {
                    let (i, o) = (at / (outputs * pixels), at / pixels % outputs);
                    let (row, column) = (at % pixels / width, at % width);
                    *y = bias[o].into();
                    for tap in 0..channels * 9 {
                        let (c, dy, dx_) = (tap / 9, tap % 9 / 3, tap % 3);
                        let (Some(yy), Some(xx)) = ((row + dy).checked_sub(1), (column + dx_).checked_sub(1)) else {
                            continue;
                        };
                        if yy >= height || xx >= width {
                            continue;
                        }
                        let from = ((i * channels + c) * height + yy) * width + xx;
                        *y += f64::from(x[from]) * f64::from(w[o * channels * 9 + tap]);
                        dx[from] += f64::from(g[at]) * f64::from(w[o * channels * 9 + tap]);
                        dw[o * channels * 9 + tap] += f64::from(g[at]) * f64::from(x[from]);
                    }
                }
                let mut scratch = Scratch::default();
                let close = |got: &[f32], want: &[f64]| {
                    got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-3)
                };
                let mut got = vec![f32::NAN; y.len()];
                direct.convolve(&x, &direct.pack(&w, outputs), Some(&bias), outputs, &mut got, &mut scratch);
                assert!(close(&got, &y), "{simd:?} {channels} to {outputs}");
                let mut got = vec![f32::NAN; x.len()];
                let back = direct.pack_transposed(&w, outputs);
                direct.convolve(&g, &back, None, channels, &mut got, &mut scratch);
                assert!(close(&got, &dx), "{simd:?} {channels} to {outputs}, gradient of the input");
                let mut got = vec![0.0; channels * 9 * direct.gradient_width(outputs)];
                direct.add_weight_gradient(&x, &g, outputs, &mut got, &mut scratch);
                assert!(close(&direct.unpack_gradient(&got, outputs), &dw), "{simd:?} gradient of the weights");
            }
        }
    }
}
