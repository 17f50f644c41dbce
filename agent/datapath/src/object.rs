//! The compiled programs, and loading them onto pinned maps.
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::EbpfLoader;
use aya::programs::{Program, ProgramError};

use crate::config::Capacity;
use crate::error::Error;
use crate::hooks::{self, Hook};
use crate::maps::shapes;
use crate::pins::Pins;
use crate::sys;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/isthmus.bpf.o");

/// Tells one object from another: FNV-1a over its bytes.
pub(crate) fn object_hash() -> u64 {
    OBJECT.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Opens the pinned programs; `None` if one is missing.
pub(crate) fn open_programs(pins: &Pins) -> Option<BTreeMap<&'static str, OwnedFd>> {
    let open = |hook: Hook| {
        let fd = sys::open_pin(&pins.programs().join(hook.program)).ok()?;
        sys::prog_info(fd.as_fd()).ok()?;
        Some((hook.program, fd))
    };
    hooks::all().map(open).collect()
}

/// Loads every program onto the maps that are pinned in `maps`; maps that are not there yet are made and pinned.
pub(crate) fn load_programs(
    maps: &Path,
    capacity: &Capacity,
) -> Result<BTreeMap<&'static str, OwnedFd>, Error> {
    let shapes = shapes(capacity);
    let mut loader = EbpfLoader::new();
    for shape in &shapes {
        loader
            .map_max_entries(shape.name, shape.max_entries)
            .map_pin_path(shape.name, maps.join(shape.name));
    }
    let refused = |program: &str, reason: String| Error::Load {
        program: program.to_owned(),
        reason,
    };
    let mut ebpf = loader.load(OBJECT).map_err(|e| refused("(object)", chain(&e)))?;
    let mut programs = BTreeMap::new();
    for hook in hooks::all() {
        let name = hook.program;
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| refused(name, "not in the object".into()))?;
        let fd = load(program).map_err(|e| refused(name, chain(&e)))?;
        programs.insert(name, fd);
    }
    Ok(programs)
}

fn load(program: &mut Program) -> Result<OwnedFd, ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// An error with its causes; of a verifier log only the end, where the reason is.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > 12 {
        format!("{} … {}", lines[0], lines[lines.len() - 10..].join("\n"))
    } else {
        text
    }
}
