//! Rows of a table by number.

use std::sync::Arc;

use burn::prelude::*;
use burn_flex::FlexTensor;

use super::host_op::{self, HostOp, Parent, on_host};

/// Rows `ids: [B, T]` of `table: [V, C]`, as `[B, T, C]`. The gradient is a dense table.
///
/// # Panics
/// If an id is not below `V`.
pub fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let ([rows, width], [b, t]) = (table.dims(), ids.dims());
    if !on_host(&table) {
        return table.select(0, ids.reshape([b * t])).reshape([b, t, width]);
    }
    let ids: Vec<u32> = integers(ids.reshape([b * t]));
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        panic!("embedding: row {id} of a table of {rows} rows");
    }
    host_op::apply([Parent::new(table)], |[table]| {
        let table: &[f32] = table.storage();
        let mut y = Vec::with_capacity(ids.len() * width);
        for id in &ids {
            y.extend_from_slice(&table[*id as usize * width..][..width]);
        }
        (host_op::tensor(y, [b, t, width]), Embedding { ids: Arc::new(ids), rows, width })
    })
}

/// The values of a tensor of whole numbers that are not negative.
pub(super) fn integers(tensor: Tensor<1, Int>) -> Vec<u32> {
    tensor.into_data().try_into_vec_as::<u32>().expect("ids are not negative and below 2^32")
}

#[derive(Clone, Debug)]
struct Embedding {
    ids: Arc<Vec<u32>>,
    rows: usize,
    width: usize,
}

impl HostOp for Embedding {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let gradient = host_op::contiguous(&gradient);
        let mut table = vec![0.0f32; self.rows * self.width];
        for (id, g) in self.ids.iter().zip(gradient.storage::<f32>().chunks_exact(self.width)) {
            table[*id as usize * self.width..][..self.width].iter_mut().zip(g).for_each(|(t, g)| *t += g);
        }
        vec![Some(host_op::tensor(table, [self.rows, self.width]))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_op() {
        let ids = Tensor::<2, Int>::from_ints([[3, 0, 3], [1, 6, 3]], &Device::flex());
        agree("embedding", [&[7, 20]], |[table], fused| {
            let ids = ids.clone().to_device(&table.device());
            let table = table.reshape([7, 20]);
            if fused { embedding(table, ids) } else { table.select(0, ids.reshape([6])).reshape([2, 3, 20]) }
        });
    }
}
