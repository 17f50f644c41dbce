//! Kernels before 6.6 have no tcx: there a program is a filter of the clsact qdisc. A filter stays without us, but nothing in
//! it says that it is ours, so the program is pinned among the links under the name of the place where the filter is.
use std::path::Path;

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};

use crate::device::Device;
use crate::error::Error;
use crate::hooks::{Attached, Hook, repin};
use crate::pins::Pins;

/// First of all filters, under a handle of our own: there is one of each program on a device.
const PRIORITY: u16 = 1;
const HANDLE: u32 = 0x1574;
const MARK: &str = "clsact-";

fn direction(hook: Hook) -> TcAttachType {
    if hook.is_ingress() {
        TcAttachType::Ingress
    } else {
        TcAttachType::Egress
    }
}

fn existing(hook: Hook, device: &str) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, direction(hook), PRIORITY, TcHandle::from(HANDLE), None)
}

fn failed(hook: Hook, device: &Device) -> impl FnOnce(aya::programs::ProgramError) -> Error {
    let object = format!("{} to {} by clsact", hook.program, device.name);
    move |e| Error::Bpf {
        call: "attach",
        object,
        source: std::io::Error::other(e.to_string()),
    }
}

/// Puts the pinned program into our filter of the device; makes the filter if there is none.
pub(crate) fn attach(pins: &Pins, hook: Hook, device: &Device) -> Result<Attached, Error> {
    let pin = pins.programs().join(hook.program);
    let mut program = SchedClassifier::from_pin(&pin).map_err(failed(hook, device))?;
    // An error here means that it is there already, or shows in the next step.
    let _ = tc::qdisc_add_clsact(&device.name);
    let held = existing(hook, &device.name).map_err(|e| failed(hook, device)(e.into()))?;
    let (link, adopted) = match program.attach_to_link(held) {
        Ok(link) => (link, true),
        Err(_) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: TcHandle::from(HANDLE),
                classid: None,
            };
            let options = TcAttachOptions::Netlink(options);
            let link = program.attach_with_options(&device.name, direction(hook), options);
            (link.map_err(failed(hook, device))?, false)
        }
    };
    // The filter must not end with this value.
    std::mem::forget(program.take_link(link).map_err(failed(hook, device))?);
    let fd = program.fd().map_err(failed(hook, device))?;
    repin(
        fd,
        &pins
            .links()
            .join(format!("{MARK}{}-{}", hook.program, device.index)),
    )?;
    Ok(Attached {
        program: hook.program.into(),
        target: device.name.clone(),
        by: "clsact filter",
        adopted,
    })
}

/// The part of a pin's name that says where the filter is, if it marks one.
pub(crate) fn place(name: &str) -> Option<&str> {
    name.strip_prefix(MARK)
}

/// Removes the filter that a pin marks; nothing happens if the device is gone.
pub(crate) fn detach(hook: Hook, ifindex: u32) {
    if let Some(device) = Device::name_of(ifindex) {
        // Dropping the link removes the filter.
        drop(existing(hook, &device));
    }
}

/// Removes the filter if `pin` marks one.
pub(crate) fn detach_marked(pin: &Path) {
    let name = pin.file_name().and_then(|name| name.to_str()).and_then(place);
    if let Some((hook, Some(ifindex))) = name.and_then(crate::hooks::parse) {
        detach(hook, ifindex);
    }
}
