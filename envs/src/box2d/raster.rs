//! A painter of flat polygons for pixel observations, after the two libraries that Gymnasium's car racing draws with:
//! integer corners, their scanline rules, and pygame's area-averaging `smoothscale`.
//!
//! Polygons are painted into a large picture of palette indices, one byte a pixel, which is then shrunk. A cell of the
//! small picture that one index fills is looked up in a table: most cells.

use std::sync::LazyLock;

/// The large picture.
pub(super) const WIDTH: usize = 1000;
pub(super) const HEIGHT: usize = 800;
/// The small picture is a square of this side.
pub(super) const SIDE: usize = 96;
/// Corners of a polygon.
const MAX_CORNERS: usize = 8;
const MAX_COLORS: usize = 32;

pub(super) type Rgb = [u8; 3];

/// How the edges of a polygon are rounded to pixels.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// SDL_gfx's `filledPolygon`.
    Gfx,
    /// pygame's `draw.polygon`.
    Draw,
}

/// Which pixels of a line make a pixel of the shrunk line: `first` with a share that is left over from the cell
/// before, whole pixels, and the last one with a share.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// First whole pixel, and how many there are.
    whole: u16,
    count: u16,
    /// Shares, of 65536, of the pixels before and after.
    before: u32,
    after: u32,
}

/// The cells that `from` pixels are shrunk to, and the reciprocal of a cell's width.
struct Shrink {
    cells: [Cell; SIDE],
    reciprocal: u32,
}

impl Shrink {
    const fn new(from: usize) -> Self {
        const ONE: u32 = 1 << 16;
        let space = (from << 16) as u32 / SIDE as u32;
        let mut cells = [Cell { whole: 0, count: 0, before: 0, after: 0 }; SIDE];
        let (mut pixel, mut before, mut i) = (0, 0, 0);
        while i < SIDE {
            let mut counter = space - before;
            let whole = pixel;
            while counter > ONE {
                counter -= ONE;
                pixel += 1;
            }
            cells[i] = Cell { whole, count: pixel - whole, before, after: counter };
            before = ONE - counter;
            pixel += 1;
            i += 1;
        }
        Self { cells, reciprocal: ((1u64 << 32) / space as u64) as u32 }
    }
}

static COLUMNS: Shrink = Shrink::new(WIDTH);
static ROWS: Shrink = Shrink::new(HEIGHT);

/// For each cell and value what a cell of this value alone is shrunk to.
struct Uniform {
    columns: [[u8; 256]; SIDE],
    rows: [[u8; 256]; SIDE],
}

static UNIFORM: LazyLock<Box<Uniform>> = LazyLock::new(|| {
    let table = |shrink: &Shrink| {
        shrink
            .cells
            .map(|cell| std::array::from_fn(|x| shrink_cell(&cell, shrink.reciprocal, |_| [x as u32; 3])[0] as u8))
    };
    Box::new(Uniform { columns: table(&COLUMNS), rows: table(&ROWS) })
});

/// The large picture with its palette.
pub(super) struct Raster {
    pixels: Vec<u8>,
    palette: [Rgb; MAX_COLORS],
    colors: usize,
    /// The first row is the lowest one.
    pub flipped: bool,
}

impl Raster {
    pub(super) fn new() -> Self {
        Self { pixels: vec![0; WIDTH * HEIGHT], palette: [[0; 3]; MAX_COLORS], colors: 1, flipped: false }
    }

    /// Makes the picture black, and forgets all colours but black.
    pub(super) fn clear(&mut self) {
        self.colors = 1;
        self.pixels.fill(0);
    }

    fn color(&mut self, rgb: Rgb) -> u8 {
        if let Some(i) = self.palette[..self.colors].iter().position(|c| *c == rgb) {
            return i as u8;
        }
        // Scenes have fewer colours; should one have more, the last ones are drawn alike.
        let i = self.colors.min(MAX_COLORS - 1);
        self.palette[i] = rgb;
        self.colors = i + 1;
        i as u8
    }

    /// Paints a row's pixels from `x0` to `x1`, both included, where they lie on the picture.
    fn span(&mut self, x0: i32, x1: i32, y: i32, color: u8) {
        if (0..HEIGHT as i32).contains(&y) && x1 >= 0 && x0 < WIDTH as i32 {
            let row = if self.flipped { HEIGHT - 1 - y as usize } else { y as usize } * WIDTH;
            let (x0, x1) = (x0.max(0) as usize, (x1 as usize).min(WIDTH - 1));
            if x0 <= x1 {
                self.pixels[row + x0..=row + x1].fill(color);
            }
        }
    }

    /// Paints a polygon with at most eight corners.
    pub(super) fn polygon(&mut self, corners: &[[i32; 2]], rgb: Rgb, rule: Rule) {
        let color = self.color(rgb);
        let (top, bottom) = corners.iter().fold((i32::MAX, i32::MIN), |(a, b), c| (a.min(c[1]), b.max(c[1])));
        let (left, right) = corners.iter().fold((i32::MAX, i32::MIN), |(a, b), c| (a.min(c[0]), b.max(c[0])));
        if top >= HEIGHT as i32 || bottom < 0 || left >= WIDTH as i32 || right < 0 {
            return;
        }
        if top == bottom && rule == Rule::Draw {
            return self.span(left, right, top, color);
        }
        for y in top.max(0)..=bottom.min(HEIGHT as i32 - 1) {
            let mut crossings = [0i32; MAX_CORNERS];
            let mut count = 0;
            let mut last = corners[corners.len() - 1];
            for &corner in corners {
                let ([x1, y1], [x2, y2]) = if last[1] < corner[1] { (last, corner) } else { (corner, last) };
                last = corner;
                let on_bottom = y == bottom && y2 == bottom && y1 < y2;
                if !(y1 <= y && y < y2 || on_bottom) {
                    continue;
                }
                crossings[count] = match rule {
                    Rule::Gfx => 65536 * (y - y1) / (y2 - y1) * (x2 - x1) + 65536 * x1,
                    Rule::Draw => (y - y1) * (x2 - x1) / (y2 - y1) + x1,
                };
                count += 1;
            }
            let crossings = &mut crossings[..count];
            crossings.sort_unstable();
            for pair in crossings.chunks_exact(2) {
                let [x0, x1] = match rule {
                    Rule::Gfx => [pair[0] + 1, pair[1] - 1].map(|x| (x >> 16) + ((x & 32768) >> 15)),
                    Rule::Draw => [pair[0], pair[1]],
                };
                self.span(x0, x1, y, color);
            }
        }
        if rule == Rule::Draw {
            // Level edges between top and bottom.
            let mut last = corners[corners.len() - 1];
            for &corner in corners {
                if corner[1] == last[1] && top < corner[1] && corner[1] < bottom {
                    self.span(corner[0].min(last[0]), corner[0].max(last[0]), corner[1], color);
                }
                last = corner;
            }
        }
    }

    /// Shrinks the picture to `[SIDE, SIDE, 3]` bytes.
    pub(super) fn shrink(&self, to: &mut [u8]) {
        let uniform = &**UNIFORM;
        for ((cells, row), row_table) in to.chunks_exact_mut(3 * SIDE).zip(&ROWS.cells).zip(&uniform.rows) {
            let first = usize::from(row.whole) - usize::from(row.before > 0);
            let last = usize::from(row.whole + row.count) + usize::from(row.after > 0);
            let lines = &self.pixels[first * WIDTH..last * WIDTH];
            for (i, (pixel, column)) in cells.chunks_exact_mut(3).zip(&COLUMNS.cells).enumerate() {
                let left = usize::from(column.whole) - usize::from(column.before > 0);
                let right = usize::from(column.whole + column.count) + usize::from(column.after > 0);
                let color = lines[left];
                let rgb = if lines.chunks_exact(WIDTH).all(|line| same(&line[left..right], color)) {
                    let columns = &uniform.columns[i];
                    self.palette[usize::from(color)].map(|c| row_table[usize::from(columns[usize::from(c)])])
                } else {
                    self.mixed_cell(row, i, &uniform.columns)
                };
                pixel.copy_from_slice(&rgb);
            }
        }
    }

    /// A cell of several colours.
    fn mixed_cell(&self, row: &Cell, column: usize, uniform: &[[u8; 256]; SIDE]) -> Rgb {
        let cell = &COLUMNS.cells[column];
        let left = usize::from(cell.whole) - usize::from(cell.before > 0);
        let right = usize::from(cell.whole + cell.count) + usize::from(cell.after > 0);
        shrink_cell(row, ROWS.reciprocal, |y| {
            let line = &self.pixels[y * WIDTH..(y + 1) * WIDTH];
            if same(&line[left..right], line[left]) {
                return self.palette[usize::from(line[left])].map(|c| uniform[column][usize::from(c)].into());
            }
            shrink_cell(cell, COLUMNS.reciprocal, |x| self.palette[usize::from(line[x])].map(u32::from))
        })
        .map(|c| c as u8)
    }
}

/// Whether all of a cell's bytes, at least eight and at most sixteen, are the same.
#[inline(always)]
fn same(bytes: &[u8], byte: u8) -> bool {
    let ends = [bytes.first_chunk::<8>(), bytes.last_chunk::<8>()];
    let [Some(first), Some(last)] = ends else { return bytes.iter().all(|b| *b == byte) };
    let splat = u64::from_ne_bytes([byte; 8]);
    (u64::from_ne_bytes(*first) ^ splat) | (u64::from_ne_bytes(*last) ^ splat) == 0
}

/// Mean of the pixels of a cell, three channels at once, with pygame's rounding.
#[inline(always)]
fn shrink_cell(cell: &Cell, reciprocal: u32, pixel: impl Fn(usize) -> [u32; 3]) -> [u32; 3] {
    let (first, end) = (usize::from(cell.whole), usize::from(cell.whole + cell.count));
    let mut sum = if cell.before > 0 { pixel(first - 1).map(|c| (c * cell.before) >> 16) } else { [0; 3] };
    let mut add = |share: [u32; 3]| sum.iter_mut().zip(share).for_each(|(sum, x)| *sum += x);
    for i in first..end {
        add(pixel(i));
    }
    if cell.after > 0 {
        add(pixel(end).map(|c| (c * cell.after) >> 16));
    }
    sum.map(|sum| ((u64::from(sum) * u64::from(reciprocal)) >> 16) as u32)
}
