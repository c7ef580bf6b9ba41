//! Digits, capital letters and a few signs as strokes, so that pictures can be labelled without a font file.

/// Width and height of a glyph's grid.
pub(super) const WIDTH: f32 = 4.0;
pub(super) const HEIGHT: f32 = 6.0;

/// The strokes of a glyph, each a list of points on the grid, from the lower left; none for an unknown sign.
pub(super) fn strokes(glyph: char) -> impl Iterator<Item = Vec<(f32, f32)>> {
    let digit = |byte: u8| f32::from(byte - b'0');
    code(glyph)
        .split_whitespace()
        .map(move |stroke| stroke.as_bytes().as_chunks::<2>().0.iter().map(|[x, y]| (digit(*x), digit(*y))).collect())
}

/// Strokes apart by spaces; each point is a digit for `x` and one for `y`.
fn code(glyph: char) -> &'static str {
    match glyph {
        '0' | 'O' => "100105163645413010",
        '1' => "152620 1030",
        '2' => "05163645440040",
        '3' => "0516364544334241301001 3313",
        '4' => "30360242",
        '5' => "460603334241301001",
        '6' => "36160501103041423303",
        '7' => "064610",
        '8' => "163645443313040516 3342413010010213",
        '9' => "43130405163645413010",
        'A' => "002640 1232",
        'B' => "00063645443303 3342413000",
        'C' => "4536160501103041",
        'D' => "00062644422000",
        'E' => "40000646 0333",
        'F' => "000646 0333",
        'G' => "45361605011030414323",
        'H' => "0006 4046 0343",
        'I' => "1030 2026 1636",
        'J' => "4641301001",
        'K' => "0006 460340",
        'L' => "060040",
        'M' => "0006234640",
        'N' => "00064046",
        'P' => "00063645443303",
        'Q' => "100105163645413010 2240",
        'R' => "00063645443303 2340",
        'S' => "453616050413334241301001",
        'T' => "0646 2620",
        'U' => "060110304146",
        'V' => "062046",
        'W' => "0610233046",
        'X' => "0046 0640",
        'Y' => "062346 2320",
        'Z' => "06460040",
        '-' => "1333",
        '+' => "1333 2224",
        '/' => "0046",
        '%' => "0046 0506 4041",
        _ => "",
    }
}
