//! Records as a document: which kinds there can be, and what becomes of one.

use super::words::words;

words! {
    /// What can be applied.
    pub enum Kind ("kind of record to apply") {
        Department = "department",
        Principal = "principal",
        Model = "model",
        Dataset = "dataset",
        Training = "training",
        Evaluation = "evaluation",
        Deployment = "deployment",
        Quota = "quota",
        Grant = "grant",
        Key = "key",
        /// Of a model or a dataset.
        Version = "version",
        WorkOrder = "work_order",
        Release = "release",
    }
}

words! {
    /// What became of a record.
    pub enum Applied ("outcome of applying") {
        Created = "created",
        Updated = "updated",
        Unchanged = "unchanged",
        /// It is in the records, and begins once the whole document is.
        Ordered = "ordered",
    }
}
