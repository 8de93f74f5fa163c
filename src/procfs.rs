//! What /proc tells of processes (proc(5)).

use std::fs;
use std::io;

/// Every descendant of a process, parents before their children.
///
/// # Errors
/// /proc can't be read.
pub(crate) fn descendants(ancestor: i32) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // One that has ended meanwhile has no file any more.
        if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent(pid)?))) {
            all.push((pid, parent));
        }
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&current) = found.get(next) {
        let children = all.iter().filter(|&&(_, parent)| parent == current);
        found.extend(children.map(|&(pid, _)| pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything. After it: the state, the parent.
    let name_end = stat.iter().rposition(|&b| b == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}
