//! Asks the processor to fetch memory ahead of its use.
//!
//! Stands beside the look-up of a batch of keys: their places in a large table are fetched together instead of one
//! after the other. This is the only module of the workspace with `unsafe`.

/// Starts to fetch the element at `index`, if there is one. Has no effect but on time.
#[inline]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(elements: &[T], index: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(element) = elements.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint. It reads nothing that a program can see and never faults, whatever the address;
        // this one is the address of a live element besides. SSE, which it needs, is part of every x86-64 processor.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (elements, index);
}

#[cfg(test)]
mod tests {
    use super::prefetch;

    #[test]
    fn what_is_not_there_is_not_fetched() {
        let elements = [1_u8, 2, 3];
        for index in [0, 2, 3, usize::MAX] {
            prefetch(&elements, index);
        }
        prefetch::<u64>(&[], 0);
        assert_eq!(elements, [1, 2, 3]);
    }
}
