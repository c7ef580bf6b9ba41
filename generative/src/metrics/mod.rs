//! How good samples, codes and scores are: Fréchet and kernel distance, precision and recall on the features of a digit
//! classifier, and the area under the receiver operating characteristic.

mod features;
mod linalg;
mod roc;
mod samples;

pub use features::{Classified, DigitClassifier, FEATURES};
pub(crate) use linalg::mean_and_covariance;
pub use linalg::symmetric_eigen;
pub use roc::{auroc, roc_curve};
pub use samples::{SampleScores, fid, kid, nearest_distances, precision_recall, sliced_wasserstein};
