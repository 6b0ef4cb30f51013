//! What a process gives back that has nothing to do.
//!
//! The text of a program is read from its file as it runs, sixteen pages for each that is needed,
//! and it stays mapped. Most of it was needed once: to start, to answer a kind of call that comes
//! twice a day. What is given back here is still in the cache of the system, so whoever needs it
//! again finds it there within microseconds; but now the system may also use that memory for
//! something else.

/// Unmaps the program's own text and constants, of which the file has the same bytes. Libraries
/// stay: they are shared with others. Does nothing where there is no way.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "segments of the running program are unmapped")]
pub fn give_back_text() {
    // SAFETY: called back before it returns, with no data.
    unsafe {
        libc::dl_iterate_phdr(Some(give_back), std::ptr::null_mut());
    }
}

/// Unmaps the program's own text and constants. There is no way here.
#[cfg(not(target_os = "linux"))]
pub const fn give_back_text() {}

/// For the first object, which is the program; returns that no more are wanted.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "segments of the running program are unmapped")]
unsafe extern "C" fn give_back(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: only asks; the loader passes its own description of the object.
    let (page, base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (
            usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)),
            object.dlpi_addr as usize,
            std::slice::from_raw_parts(object.dlpi_phdr, count),
        )
    };
    let Ok(page) = page else { return 1 };
    for header in headers {
        // Nothing was ever written there, so that the file has all of it.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = base + header.p_vaddr as usize;
        let end = (begin + header.p_memsz as usize) / page * page;
        let begin = begin.next_multiple_of(page);
        if begin < end {
            // SAFETY: a private mapping of a file, never written to: the next access maps the same
            // bytes again.
            unsafe {
                libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED);
            }
        }
    }
    1
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    /// KiB of files that are mapped into this process.
    fn mapped() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("RssFile:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    #[test]
    fn text_goes_and_comes_back() {
        let before = mapped().unwrap();
        super::give_back_text();
        let after = mapped().unwrap();
        assert!(after < before, "{before} KiB before, {after} KiB after");
        // All of it still works.
        assert_eq!(format!("{:?}", "ä".repeat(3)), "\"äää\"");
    }
}
