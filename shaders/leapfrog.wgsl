// The two halves of a kick-drift-kick step around the evaluation of the forces. One body a lane.

struct Params {
    bodies: u32,
    // The time step.
    dt: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> accelerations: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> velocities: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> bodies: array<vec4<f32>>;

@compute @workgroup_size(64)
fn kick_drift(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + lane;
    if i < params.bodies {
        let v = velocities[i].xyz + (0.5 * params.dt) * accelerations[i].xyz;
        velocities[i] = vec4(v, velocities[i].w);
        bodies[i] = vec4(bodies[i].xyz + params.dt * v, bodies[i].w);
    }
}

@compute @workgroup_size(64)
fn kick(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + lane;
    if i < params.bodies {
        let v = velocities[i].xyz + (0.5 * params.dt) * accelerations[i].xyz;
        velocities[i] = vec4(v, velocities[i].w);
    }
}
