//! The descendants of a process, from /proc (proc(5)).

use std::fs;
use std::io;

/// Every descendant of a process, parents before their children.
///
/// # Errors
/// /proc can't be read.
pub(crate) fn descendants(ancestor: i32) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for pid in processes()? {
        // One that has ended meanwhile has no parent any more.
        if let Some(parent) = parent(pid) {
            all.push((pid, parent));
        }
    }
    // An empty directory is no /proc, and says nothing of anybody.
    if !all.iter().any(|&(pid, _)| pid == ancestor) {
        return Err(io::ErrorKind::NotFound.into());
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

fn processes() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything. After it: the state, the parent.
    let name_end = stat.iter().rposition(|&b| b == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        assert!(
            descendants(std::process::id() as i32)
                .unwrap()
                .contains(&pid)
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
