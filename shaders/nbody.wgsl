// accelerations[i] = sum over j of mass[j] * (r[j] - r[i]) / (|r[j] - r[i]|^2 + softening^2)^(3/2)
//
// A lane holds eight targets, so that each source it loads is used eight times; that makes shared memory superfluous.
// With few bodies SLICES lanes share the sources of a target, and their sums are added at the end.

struct Params {
    bodies: u32,
    // The body that the first acceleration belongs to, and how many there are.
    first: u32,
    targets: u32,
    softening2: f32,
    // The sources that are summed: from a multiple of BLOCK to the one before `end`. Sums of sources before are there.
    begin: u32,
    end: u32,
}

const LANES: u32 = 64u;
// A power of two, at most LANES.
override SLICES: u32 = 1u;
// Lanes of a workgroup that hold different targets.
override HOLDERS: u32 = LANES / SLICES;
// Whether pairs at the same place must be left out, because their strength of attraction may overflow.
override CAREFUL: bool = false;
// The square of a distance below which bodies count as being at the same place, and one from which nothing attracts.
const LEAST: f32 = 1e-20;
const FAR: f32 = 1e30;
// Sources that are summed before they are added to the total, for accuracy.
const BLOCK: u32 = 256u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> bodies: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> accelerations: array<vec4<f32>>;

// The sums of each of a lane's targets, for all lanes.
var<workgroup> sums: array<vec4<f32>, 8u * LANES>;

// The same quantity of four targets: x of all four, then y, then z.
struct Four {
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
}

// Four bodies, HOLDERS apart. Past the last body the last one stands in.
fn load(i: u32) -> Four {
    let last = params.bodies - 1u;
    let columns = transpose(mat4x4<f32>(
        bodies[min(i, last)],
        bodies[min(i + HOLDERS, last)],
        bodies[min(i + 2u * HOLDERS, last)],
        bodies[min(i + 3u * HOLDERS, last)],
    ));
    return Four(columns[0], columns[1], columns[2]);
}

fn attract(sum: ptr<function, Four>, at: Four, source: vec4<f32>) {
    let dx = source.x - at.x;
    let dy = source.y - at.y;
    let dz = source.z - at.z;
    let square = dx * dx + dy * dy + dz * dz;
    var softened = square + params.softening2;
    if CAREFUL {
        softened = select(softened, vec4(FAR), square < vec4(LEAST));
    }
    let inverse = inverseSqrt(softened);
    // The mass first, so that what is far and heavy does not underflow.
    let strength = (source.w * inverse) * (inverse * inverse);
    (*sum).x += strength * dx;
    (*sum).y += strength * dy;
    (*sum).z += strength * dz;
}

fn add(total: ptr<function, Four>, sum: Four) {
    (*total).x += sum.x;
    (*total).y += sum.y;
    (*total).z += sum.z;
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group_first = (group.y * groups.x + group.x) * 8u * HOLDERS;
    let holder = params.first + group_first + lane % HOLDERS;
    let slice = lane / HOLDERS;
    let at_low = load(holder);
    let at_high = load(holder + 4u * HOLDERS);
    var low = Four();
    var high = Four();
    for (var start = params.begin; start < params.end; start += BLOCK) {
        let end = min(start + BLOCK, params.end);
        var low_sum = Four();
        var high_sum = Four();
        for (var j = start + slice; j < end; j += SLICES) {
            let source = bodies[j];
            attract(&low_sum, at_low, source);
            attract(&high_sum, at_high, source);
        }
        add(&low, low_sum);
        add(&high, high_sum);
    }

    for (var k = 0u; k < 4u; k++) {
        sums[k * LANES + lane] = vec4(low.x[k], low.y[k], low.z[k], 0.0);
        sums[(k + 4u) * LANES + lane] = vec4(high.x[k], high.y[k], high.z[k], 0.0);
    }
    workgroupBarrier();
    // Target k of the group was the one numbered k / HOLDERS of every lane that leaves the remainder k % HOLDERS.
    for (var k = lane; k < 8u * HOLDERS; k += LANES) {
        let at = k / HOLDERS * LANES + k % HOLDERS;
        var total = vec4<f32>();
        for (var s = 0u; s < SLICES; s++) {
            total += sums[at + s * HOLDERS];
        }
        if group_first + k < params.targets {
            if params.begin > 0u {
                total += accelerations[group_first + k];
            }
            accelerations[group_first + k] = total;
        }
    }
}
