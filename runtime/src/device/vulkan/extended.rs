//! Opens a device with VK_KHR_shader_bfloat16, which wgpu does not know. Not run on hardware yet: nothing of it
//! happens unless bf16 is asked for and the driver offers it, and what comes of it is tested before it is used.

use ash::vk;
use std::ffi::{CStr, c_void};
use wgpu::hal::api::Vulkan;

const EXTENSION: &CStr = c"VK_KHR_shader_bfloat16";

/// VkPhysicalDeviceShaderBfloat16FeaturesKHR
#[repr(C)]
#[derive(Clone, Copy)]
struct Bfloat16Features {
    kind: vk::StructureType,
    next: *mut c_void,
    float: vk::Bool32,
    dot_product: vk::Bool32,
    cooperative_matrix: vk::Bool32,
}

impl Bfloat16Features {
    /// Number 141 of the extensions' structures from 1000000000 on, a thousand each.
    const KIND: vk::StructureType = vk::StructureType::from_raw(1_000_141_000);

    fn new(next: *mut c_void) -> Bfloat16Features {
        Bfloat16Features {
            kind: Bfloat16Features::KIND,
            next,
            float: 0,
            dot_product: 0,
            cooperative_matrix: 0,
        }
    }
}

/// The device as wgpu would open it, with bf16 in cooperative matrices; nothing where the driver has them not, or
/// something fails on the way.
pub fn open(adapter: &wgpu::Adapter, wanted: &wgpu::DeviceDescriptor) -> Option<(wgpu::Device, wgpu::Queue)> {
    // SAFETY: the adapter is alive for as long as the guard, and nothing is destroyed.
    let raw = unsafe { adapter.as_hal::<Vulkan>() }?;
    if !raw.physical_device_capabilities().supports_extension(EXTENSION) {
        return None;
    }
    let instance = raw.shared_instance().raw_instance();
    let mut found = Bfloat16Features::new(std::ptr::null_mut());
    let mut features = vk::PhysicalDeviceFeatures2 { p_next: (&raw mut found).cast(), ..Default::default() };
    // SAFETY: the extension is there, so that the driver knows the structure in the chain.
    unsafe { instance.get_physical_device_features2(raw.raw_physical_device(), &mut features) };
    if found.float == 0 || found.cooperative_matrix == 0 {
        return None;
    }
    let mut asked = Bfloat16Features::new(std::ptr::null_mut());
    (asked.float, asked.cooperative_matrix) = (vk::TRUE, vk::TRUE);
    let asked = &raw mut asked;
    let add = move |device: wgpu::hal::vulkan::CreateDeviceCallbackArgs| {
        device.extensions.push(EXTENSION);
        // SAFETY: the structure outlives the call that opens the device; it goes to the head of the chain.
        unsafe { (*asked).next = device.create_info.p_next.cast_mut() };
        device.create_info.p_next = asked.cast_const().cast();
    };
    // SAFETY: what is added was asked of the driver above.
    let opened = unsafe {
        raw.open_with_callback(
            wanted.required_features,
            &wanted.required_limits,
            &wanted.memory_hints,
            Some(Box::new(add)),
        )
    };
    // SAFETY: it was opened by this adapter, with these features and limits.
    unsafe { adapter.create_device_from_hal(opened.ok()?, wanted) }.ok()
}
