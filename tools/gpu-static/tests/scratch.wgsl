// A private array that is indexed by a variable, and too large for registers: it needs scratch memory.

@group(0) @binding(0) var<storage, read_write> x: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var table: array<u32, 512>;
    for (var i = 0u; i < 512u; i++) {
        table[x[i] & 511u] = x[i + id.x];
    }
    for (var i = 0u; i < 512u; i++) {
        x[i * 64u + id.x] = table[x[i] & 511u];
    }
}
