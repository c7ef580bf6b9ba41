//! The terminal as a screen: pictures as half blocks in true colour with lines of text below, and its restoration
//! however the program ends.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{KeyboardEnhancementFlags, PopKeyboardEnhancementFlags, PushKeyboardEnhancementFlags};
use crossterm::style::{Color, Print, ResetColor, SetBackgroundColor, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use hotfire_envs::Frame;

type Rgb = [u8; 3];

/// Whether the terminal is ours at the moment, and whether it reports releases of keys.
static OPEN: AtomicBool = AtomicBool::new(false);
static REPORTS_RELEASES: AtomicBool = AtomicBool::new(false);

/// The whole terminal; the user's own screen comes back when this is dropped or the program panics.
pub struct Screen {
    out: BufWriter<Stdout>,
    size: (u16, u16),
    /// Upper and lower half of each cell as they are shown, and the lines below.
    shown: Vec<Option<[Rgb; 2]>>,
    lines: Vec<String>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            report(info);
        }));
        terminal::enable_raw_mode()?;
        OPEN.store(true, Ordering::Relaxed);
        // From here on `restore` has something to do, whatever fails.
        let size = terminal::size()?;
        let screen = Self { out: BufWriter::new(io::stdout()), size, shown: Vec::new(), lines: Vec::new() };
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        if terminal::supports_keyboard_enhancement().unwrap_or(false) {
            execute!(io::stdout(), PushKeyboardEnhancementFlags(KeyboardEnhancementFlags::REPORT_EVENT_TYPES))?;
            REPORTS_RELEASES.store(true, Ordering::Relaxed);
        }
        Ok(screen)
    }

    /// Whether the terminal says when a key is released; most repeat a held key instead.
    pub fn reports_releases(&self) -> bool {
        REPORTS_RELEASES.load(Ordering::Relaxed)
    }

    pub fn columns(&self) -> usize {
        self.size.0.into()
    }

    /// Takes on a new size of the window.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.size = (columns, rows);
        self.shown.clear();
        self.lines.clear();
    }

    /// Shows a picture, as large as fits, and lines of text below it. Only what has changed is written.
    pub fn draw(&mut self, frame: Option<&Frame>, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = (usize::from(self.size.0), usize::from(self.size.1));
        let picture_rows = rows.saturating_sub(lines.len());
        let cells = frame.map_or_else(Vec::new, |frame| half_blocks(frame, columns, picture_rows));
        let height = cells.len().checked_div(columns).unwrap_or(0);
        if self.shown.len() != cells.len() || self.lines.len() != lines.len() {
            queue!(self.out, ResetColor, Clear(ClearType::All))?;
            self.shown = vec![None; cells.len()];
            self.lines = vec![String::new(); lines.len()];
        }
        let (mut pen, mut at) = (None, None);
        for (i, (cell, shown)) in cells.iter().zip(&mut self.shown).enumerate() {
            if cell == shown {
                continue;
            }
            if at != Some(i) {
                queue!(self.out, cursor::MoveTo((i % columns) as u16, (i / columns) as u16))?;
            }
            match cell {
                Some(colors) => {
                    if pen != Some(*colors) {
                        let [upper, lower] = colors.map(|[r, g, b]| Color::Rgb { r, g, b });
                        queue!(self.out, SetForegroundColor(upper), SetBackgroundColor(lower))?;
                        pen = Some(*colors);
                    }
                    queue!(self.out, Print('▀'))?;
                }
                None => {
                    queue!(self.out, ResetColor, Print(' '))?;
                    pen = None;
                }
            }
            // Past the last column the cursor waits for another cell of the same line.
            at = (!(i + 1).is_multiple_of(columns)).then_some(i + 1);
            *shown = *cell;
        }
        queue!(self.out, ResetColor)?;
        for (i, (line, shown)) in lines.iter().zip(&mut self.lines).enumerate() {
            let row = (height + i) as u16;
            if line != shown && row < self.size.1 {
                let cut: String = line.chars().take(columns).collect();
                queue!(self.out, cursor::MoveTo(0, row), Print(cut), Clear(ClearType::UntilNewLine))?;
                shown.clone_from(line);
            }
        }
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the user their screen, cursor and line editing back.
fn restore() {
    if !OPEN.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout();
    // Nothing is left to be done about a terminal that is gone.
    if REPORTS_RELEASES.swap(false, Ordering::Relaxed) {
        let _ = execute!(out, PopKeyboardEnhancementFlags);
    }
    let _ = execute!(out, ResetColor, LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

/// The picture in the middle of lines of `columns` cells, at most `rows` of them: two pixels a cell, one above the
/// other. Each is the mean of what it covers.
fn half_blocks(frame: &Frame, columns: usize, rows: usize) -> Vec<Option<[Rgb; 2]>> {
    let (width, height) = (frame.width as usize, frame.height as usize);
    // Whichever of the two is scarcer; both sides keep at least a pixel.
    let new_width = columns.min(2 * rows * width / height).max(1);
    let new_height = (new_width * height / width).max(1);
    if columns == 0 || rows == 0 {
        return Vec::new();
    }
    let pixel = |x: usize, y: usize| -> Rgb {
        let span = |i: usize, new: usize, old: usize| i * old / new..((i + 1) * old).div_ceil(new);
        let (across, down) = (span(x, new_width, width), span(y.min(new_height - 1), new_height, height));
        let count = (across.len() * down.len()) as u32;
        let mut sum = [0; 3];
        for row in down {
            for pixel in frame.rgb[3 * (row * width + across.start)..3 * (row * width + across.end)].as_chunks::<3>().0
            {
                sum.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += u32::from(*x));
            }
        }
        sum.map(|sum| ((sum + count / 2) / count) as u8)
    };
    let margin = (columns - new_width) / 2;
    let cell = |row: usize, column: usize| {
        let x = column.checked_sub(margin).filter(|x| *x < new_width)?;
        Some([pixel(x, 2 * row), pixel(x, 2 * row + 1)])
    };
    (0..new_height.div_ceil(2))
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| cell(row, column))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_blocks_are_means_of_what_they_cover() {
        // 4 x 4 pixels in quadrants of one colour each, but for one odd pixel.
        let color = |x: usize, y: usize| [[10, 20], [30, 40]][y / 2][x / 2] + if (x, y) == (3, 3) { 4 } else { 0 };
        let rgb = (0..16).flat_map(|i| [color(i % 4, i / 4); 3]).collect();
        let frame = Frame { width: 4, height: 4, rgb };
        let cells = half_blocks(&frame, 5, 1);
        assert_eq!(cells, [None, Some([[10; 3], [30; 3]]), Some([[20; 3], [41; 3]]), None, None]);
        // One to one, and enlarged.
        let cells = half_blocks(&frame, 4, 2);
        assert_eq!((cells.len(), cells[7]), (8, Some([[40; 3], [44; 3]])));
        let cells = half_blocks(&frame, 8, 9);
        assert_eq!((cells.len(), cells[0], cells[31]), (32, Some([[10; 3]; 2]), Some([[44; 3]; 2])));
        assert!(half_blocks(&frame, 0, 3).is_empty() && half_blocks(&frame, 3, 0).is_empty());
        // A picture much wider than high still has a line.
        let wide = Frame { width: 100, height: 1, rgb: vec![7; 300] };
        assert_eq!(half_blocks(&wide, 10, 4), vec![Some([[7; 3]; 2]); 10]);
    }
}
