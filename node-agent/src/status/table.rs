//! A list that is made when somebody reads it: most passes are read by nobody, and the texts of thousands of pairs take
//! more memory than what they are made of.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

type Make<T> = Box<dyn FnOnce() -> Vec<T> + Send>;

/// A list of entries; reads like a slice.
pub struct Table<T>(LazyLock<Vec<T>, Make<T>>);

impl<T: 'static> Table<T> {
    /// A table that is made by the first who reads it.
    pub fn new(make: impl FnOnce() -> Vec<T> + Send + 'static) -> Self {
        Self(LazyLock::new(Box::new(make)))
    }
}

impl<T: Send + 'static> From<Vec<T>> for Table<T> {
    fn from(entries: Vec<T>) -> Self {
        Self::new(move || entries)
    }
}

/// What has not been read by then is made.
impl<T: Clone + Send + 'static> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self::from((**self).clone())
    }
}

impl<T: 'static> Default for Table<T> {
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl<T> Deref for Table<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<'a, T> IntoIterator for &'a Table<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
