"""A Quadrants kernel of `cpic`, which alone imports it, when Genesis runs."""

import quadrants as qd
from genesis.utils import array_class, sdf


@qd.kernel
def remember_sides(
    f: qd.i32,
    # In: particles and whether they are active.
    particles: qd.template(),
    active: qd.template(),
    # Out: normals (particles, shapes, environments).
    normals: qd.template(),
    # In: the shapes.
    geoms_state: array_class.GeomsState,
    geoms_info: array_class.GeomsInfo,
    sdf_info: array_class.SDFInfo,
    rigid_info: array_class.RigidInfo,
    collider_static_config: qd.template(),
):
    """See `lucibot_kernels.mpm.particle_normals`."""
    for p, g, b in normals:
        if active[f, p, b].active and geoms_info.needs_coup[g]:
            at, kept = particles[f, p, b].pos, normals[p, g, b]
            outside = sdf.sdf_func_world(g, b, at, geoms_state, geoms_info, sdf_info) > 0
            if outside or kept.norm() == 0:
                found = sdf.sdf_func_normal_world(
                    g, b, at, geoms_state, geoms_info, rigid_info, sdf_info, collider_static_config
                )
                if found.dot(kept) >= 0:
                    normals[p, g, b] = found
