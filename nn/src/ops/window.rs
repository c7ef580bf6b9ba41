//! Sliding windows over channels-first images, and the two ways between an image and the matrix of its windows.

/// Windows of `kernel` pixels, `stride` apart, over an image `[channels, height, width]` with `padding` zeros around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: usize,
}

impl Window {
    /// Elements of the image.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Windows down and across.
    ///
    /// # Panics
    /// If the kernel is larger than the padded image, or the stride is zero.
    pub fn out(&self) -> [usize; 2] {
        assert!(self.stride > 0, "a window's stride is at least 1");
        let count = |size: usize, kernel: usize| {
            let padded = size + 2 * self.padding;
            assert!(padded >= kernel, "a kernel of {kernel} pixels does not fit into {padded} pixels");
            (padded - kernel) / self.stride + 1
        };
        [count(self.height, self.kernel[0]), count(self.width, self.kernel[1])]
    }

    /// Number of windows.
    pub fn positions(&self) -> usize {
        let [h, w] = self.out();
        h * w
    }

    /// Elements of one window over all channels.
    pub fn taps(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Whether the matrix of windows is the image itself.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == 0
    }

    /// Images whose windows are joined to one matrix, so that small images make products worth their overhead.
    pub fn group(&self) -> usize {
        (256 / self.positions().max(1)).max(1)
    }

    /// Writes the windows of `image` to columns `at..at + positions` of `matrix: [taps, columns]`.
    pub fn gather(&self, image: &[f32], matrix: &mut [f32], columns: usize, at: usize) {
        let [_, out_w] = self.out();
        self.rows(|row, y, source, [first, last], x| {
            let out = &mut matrix[row * columns + at + y * out_w..][..out_w];
            let Some(source) = source else { return out.fill(0.0) };
            let source = &image[source..][..self.width];
            out[..first].fill(0.0);
            out[last..].fill(0.0);
            if self.stride == 1 {
                out[first..last].copy_from_slice(&source[x..x + last - first]);
            } else {
                out[first..last].iter_mut().zip(source[x..].iter().step_by(self.stride)).for_each(|(o, s)| *o = *s);
            }
        });
    }

    /// The transpose of [`gather`](Self::gather): adds each window's elements to the pixels they were taken from.
    pub fn scatter(&self, matrix: &[f32], columns: usize, at: usize, image: &mut [f32]) {
        let [_, out_w] = self.out();
        self.rows(|row, y, target, [first, last], x| {
            let Some(target) = target else { return };
            let windows = &matrix[row * columns + at + y * out_w..][first..last];
            let target = &mut image[target..][..self.width];
            if self.stride == 1 {
                target[x..x + last - first].iter_mut().zip(windows).for_each(|(t, w)| *t += w);
            } else {
                target[x..].iter_mut().step_by(self.stride).zip(windows).for_each(|(t, w)| *t += w);
            }
        });
    }

    /// Calls `visit(tap, out_y, image row offset or None in the padding, out_x range inside the image, first image x)`.
    fn rows(&self, mut visit: impl FnMut(usize, usize, Option<usize>, [usize; 2], usize)) {
        let [out_h, out_w] = self.out();
        let (s, p) = (self.stride, self.padding);
        let mut tap = 0;
        for channel in 0..self.channels {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    // Image x of window `ox` is ox * s + kx - p: inside for first <= ox < last.
                    let first = p.saturating_sub(kx).div_ceil(s).min(out_w);
                    let last = (self.width + p).saturating_sub(kx).div_ceil(s).clamp(first, out_w);
                    let x = if first < last { first * s + kx - p } else { 0 };
                    for oy in 0..out_h {
                        let y = (oy * s + ky).checked_sub(p).filter(|y| *y < self.height && first < last);
                        visit(tap, oy, y.map(|y| (channel * self.height + y) * self.width), [first, last], x);
                    }
                    tap += 1;
                }
            }
        }
    }
}

/// `[images, rows, positions]` to `[rows, images * positions]`.
pub(crate) fn join_images(images: &[f32], rows: usize, positions: usize, joined: &mut [f32]) {
    let columns = images.len() / rows;
    for (i, image) in images.chunks_exact(rows * positions).enumerate() {
        for (row, joined) in image.chunks_exact(positions).zip(joined.chunks_exact_mut(columns)) {
            joined[i * positions..][..positions].copy_from_slice(row);
        }
    }
}

/// The inverse of [`join_images`].
pub(crate) fn split_images(joined: &[f32], rows: usize, positions: usize, images: &mut [f32]) {
    let columns = joined.len() / rows;
    for (i, image) in images.chunks_exact_mut(rows * positions).enumerate() {
        for (row, joined) in image.chunks_exact_mut(positions).zip(joined.chunks_exact(columns)) {
            row.copy_from_slice(&joined[i * positions..][..positions]);
        }
    }
}

/// Images of one unit of work in sums over the batch: the partition is fixed, so that sums repeat bit for bit.
pub(crate) fn images_per_part(batch: usize, group: usize) -> usize {
    batch.div_ceil(16).next_multiple_of(group).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scatter_is_the_transpose_of_gather() {
        for (kernel, stride, padding) in
            [([3, 3], 1, 1), ([3, 3], 2, 1), ([4, 4], 2, 1), ([2, 5], 3, 2), ([1, 1], 1, 0)]
        {
            let window = Window { channels: 2, height: 7, width: 6, kernel, stride, padding };
            let value = |i: usize, salt: usize| ((i * 7919 + salt) % 101) as f32 - 50.0;
            let (positions, taps) = (window.positions(), window.taps());
            let columns = positions + 3;
            let image: Vec<f32> = (0..window.image_len()).map(|i| value(i, 1)).collect();
            let mut matrix = vec![f32::NAN; taps * columns];
            window.gather(&image, &mut matrix, columns, 2);
            let inside = |i: &usize| (2..2 + positions).contains(&(i % columns));
            assert!((0..matrix.len()).all(|i| matrix[i].is_nan() != inside(&i)), "writes its own columns and no other");
            // <gather(image), other> equals <image, scatter(other)>; whole numbers make it exact.
            let other: Vec<f32> = (0..matrix.len()).map(|i| value(i, 2)).collect();
            let mut back = vec![0.0; image.len()];
            window.scatter(&other, columns, 2, &mut back);
            let forward: f32 = (0..matrix.len()).filter(inside).map(|i| matrix[i] * other[i]).sum();
            let backward: f32 = image.iter().zip(&back).map(|(a, b)| a * b).sum();
            assert_eq!(forward, backward, "{window:?}");
        }
    }
}
