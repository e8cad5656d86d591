"""Rethink's Sawyer from primitives, a Duplo brick in its hand, a brick to stack it on, and a tower in the way.

Metres, radians and kilograms; the world frame is that of the robot's base. Only pairs of shapes that MuJoCo, MJX and
MuJoCo Warp all collide touch each other: planes, boxes, spheres and capsules, and every pair is named.

Joints, inertias and limits are those of Rethink's `sawyer_description`, the capsules of the arm those of the MuJoCo
Menagerie's `rethink_robotics_sawyer` (both Apache-2.0). The head, which turns on the robot, is fixed here.
"""

from __future__ import annotations

from typing import NamedTuple

from qompose.tasks.scenes import HEADER

# Order of the sites in the scenes below: readings index `site_xpos` with these.
HAND_SITE, BRICK_SITE = 0, 1
BRICK_BODY = 10


class Link(NamedTuple):
    """One link of the arm with the joint that carries it: Rethink's URDF, and what is added for the simulation."""

    name: str
    position: tuple[float, float, float]  # of the joint in the frame of the link before
    rpy: tuple[float, float, float]  # rotations about fixed axes x, y, z
    limits: tuple[float, float]
    torque: float  # Nm at full action: the limits of policies in RAIL's package `sawyer_control`
    damping: float  # Nm s/rad, as in Rethink's own simulation; stands in for the fast inner loop of the robot
    armature: float
    mass: float
    centre: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]  # xx yy zz xy xz yz, about the centre
    capsules: tuple[tuple[str, str, float], ...]  # name, ends, radius


HALF_PI = 1.5707963267948966
LINKS = (
    Link(
        "l0", (0.0, 0.0, 0.08), (0.0, 0.0, 0.0), (-3.0503, 3.0503), 4.0, 10.0, 0.1, 5.3213,
        (0.024366, 0.010969, 0.14363), (0.053314, 0.057902, 0.023659, 0.0047093, 0.011734, 0.0080179),
        (("l0", "0 0 -.005 0 0 .25", 0.07),),
    ),
    Link(
        "l1", (0.081, 0.05, 0.237), (-HALF_PI, HALF_PI, 0.0), (-3.8095, 2.2736), 3.5, 5.0, 0.1, 4.505,
        (-0.0030849, -0.026811, 0.092521), (0.022398, 0.014613, 0.017295, -0.00023986, -0.00029362, -0.0060875),
        (("l1", "0 0 -.06 0 0 .13", 0.068),),
    ),
    Link(
        "l2", (0.0, -0.14, 0.1425), (HALF_PI, 0.0, 0.0), (-3.0426, 3.0426), 3.0, 5.0, 0.1, 1.745,
        (-0.00016044, -0.014967, 0.13582), (0.025506, 0.0253, 0.0034179, 4.4101e-06, 1.4955e-05, -0.0033204),
        (("l2", "0 0 -.15 0 0 .26", 0.055),),
    ),
    Link(
        "l3", (0.0, -0.042, 0.26), (-HALF_PI, 0.0, 0.0), (-3.0439, 3.0439), 2.5, 1.0, 0.1, 2.5097,
        (-0.0048135, -0.0281, -0.084154), (0.01016, 0.0065685, 0.0069078, -9.7452e-06, 0.00026624, 0.0030316),
        (("l3", "0 0 -.115 0 0 .03", 0.055),),
    ),
    Link(
        "l4", (0.0, -0.125, -0.1265), (HALF_PI, 0.0, 0.0), (-2.9761, 2.9761), 2.0, 2.0, 0.02, 1.1136,
        (-0.0018844, 0.0069001, 0.1341), (0.013557, 0.013555, 0.0013658, 1.8109e-05, 0.00013523, 0.0010561),
        (("l4", "0 0 -.13 0 0 .27", 0.045),),
    ),
    Link(
        "l5", (0.0, 0.031, 0.275), (-HALF_PI, 0.0, 0.0), (-2.9761, 2.9761), 1.5, 1.0, 0.02, 1.5625,
        (0.0061133, -0.023697, 0.076416), (0.0047328, 0.0029676, 0.0031762, 0.00011526, 4.6269e-05, -0.0011557),
        (("l5", "0 0 -.02 0 0 .1", 0.045), ("l5_end", "0 0 .105 0 -.082 .105", 0.045)),
    ),
    Link(
        "l6", (0.0, -0.11, 0.1053), (-HALF_PI, -0.17453, 3.1416), (-4.7124, 4.7124), 1.0, 1.0, 0.02, 0.3292,
        (-8.0726e-06, 0.0085838, -0.0049566),
        (0.00031105, 0.00021549, 0.00035976, 1.4771e-06, -3.7074e-07, -8.4533e-06),
        (("l6", "0 0 -.02 0 0 0", 0.045),),
    ),
)  # fmt: skip
HAND_POSITION, HAND_YAW = (0.0, 0.0, 0.0245), HALF_PI  # of the frame `right_hand` on the last link
NEUTRAL = (0.0, -1.18, 0.0, 2.18, 0.0, 0.57, 3.3161)  # rad: Rethink's pose of that name

# Duplo bricks with 2 x 2 studs. A brick's frame is in the middle of its bottom, z up.
BRICK_WIDTH, BRICK_HEIGHT = 0.0318, 0.0192
BRICK_MOUNT = (0.0, 0.0, 0.145)  # of the held brick in right_hand; it hangs upside down there
TABLE_HEIGHT = 0.05
GOAL = (0.55, 0.1603, TABLE_HEIGHT + BRICK_HEIGHT)  # of the held brick: on top of the one on the table
TOWER_BRICKS = 6
TOWER_OFFSET = (0.0, -0.12, TOWER_BRICKS * BRICK_HEIGHT / 2 - BRICK_HEIGHT)  # of its middle from GOAL
TOWER_HALF = (BRICK_WIDTH / 2, BRICK_WIDTH / 2, TOWER_BRICKS * BRICK_HEIGHT / 2)

STUD_RADIUS, STUD_HEIGHT, STUD_PITCH = 0.0047, 0.0045, 0.016
CLEARANCE = 0.00005  # between a stud and the wall beside it
ROOF_GAP = 0.0002  # the roof rests on the studs, and the walls stay this far above the brick below
WALL = 0.00315  # thickness
BALL_RADIUS, INTERFERENCE = 0.0015, 0.0001  # what the tube of a brick does: four balls squeezed by the studs
SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))

RED, BLACK, ORANGE, BLUE = ".5 .1 .1 1", ".2 .2 .2 1", ".9 .5 .15 1", ".2 .4 .75 1"
# Stiff where surfaces must hold, soft where bricks must slide into each other by a press of 3.5 N.
HARD = 'solref=".004 1" solimp=".9 .95 .001" friction="{0} {0} .005 .0001 .0001"'
WALLS, SURFACES = HARD.format(0.2), HARD.format(0.5)
CLUTCH = 'solref=".02 1" solimp=".8 .9 .0005" friction=".5 .5 .005 .0001 .0001"'
MOVING = ("l3", "l4", "l5", "l5_end", "l6", "gripper")  # what may touch the table


def reach_scene(target: tuple[float, float, float] | None) -> str:
    """Return the MJCF of the arm with its empty gripper above a table, and of a target for the hand.

    A target of None is a body on three slides, so that every episode can have its own: qpos[7:10].
    """
    slides = "" if target else "".join(
        f'<joint name="target_slide_{axis}" type="slide" axis="{direction}" damping="1"/>'
        for axis, direction in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    )  # fmt: skip
    place = " ".join(map(str, target or (0.0, 0.0, 0.0)))
    marker = f"""<body name="target" pos="{place}" gravcomp="1">{slides}
      <geom name="target" type="sphere" size=".02" mass=".01" rgba=".2 .7 .35 .75"/></body>"""
    pairs = [("table", name, SURFACES) for name in MOVING]
    return _scene(_arm(""), _table(0.0) + marker, pairs, sensors="")


def stack_scene(lead_in: float, tower: bool) -> str:
    """Return the MJCF of the arm with a brick in its hand, a brick on the table, and a tower in between or not.

    `lead_in` (m) is the radius of the rounded tops of the studs, which decides how far off a brick still slides in.
    """
    pairs = [("table", name, SURFACES) for name in (*MOVING, "hull")] + [("base_brick", "hull", SURFACES)]
    holds = [f"wall{i}" for i in range(4)]
    balls = [f"ball{i}" for i in range(4)]
    for stud in range(4):
        pairs += [(f"stud{stud}_outer", name, WALLS) for name in (*holds, "roof")]
        pairs += [(f"stud{stud}_inner", name, WALLS) for name in holds]
        pairs += [(f"stud{stud}_inner", name, CLUTCH) for name in balls]
    things = _table(TABLE_HEIGHT) + _base_brick(lead_in)
    sensors = "".join(f'<touch name="stud{stud}" site="stud{stud}"/>' for stud in range(4))
    if tower:
        things += _tower()
        pairs += [("tower", name, SURFACES) for name in (*MOVING[1:], "hull")]
        sensors += '<touch name="tower" site="tower"/>'
    return _scene(_arm(_held_brick(lead_in)), things, pairs, sensors)


def _scene(arm: str, things: str, pairs: list[tuple[str, str, str]], sensors: str) -> str:
    own = [(link, fixed, SURFACES) for link in ("l4", "l5", "l5_end", "gripper") for fixed in ("base", "l0", "l1")]
    contacts = "\n    ".join(
        f'<pair geom1="{first}" geom2="{second}" condim="3" {surface}/>' for first, second, surface in pairs + own
    )
    motors = "\n    ".join(
        f'<motor name="{joint}" joint="{joint}" gear="{link.torque}" ctrlrange="-1 1"/>'
        for joint, link in ((f"right_j{i}", link) for i, link in enumerate(LINKS))
    )
    return f"""<mujoco model="sawyer">{HEADER}
  <compiler eulerseq="XYZ"/>
  <asset><texture type="skybox" builtin="flat" rgb1=".96 .96 .95" rgb2=".96 .96 .95" width="32" height="32"/></asset>
  <option timestep="0.002" integrator="implicitfast" solver="Newton" iterations="20" ls_iterations="20"
    tolerance="1e-8" cone="pyramidal"><flag autoreset="disable"/></option>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <light pos=".2 -1 2.5" dir=".1 .4 -1" directional="true" diffuse=".4 .4 .4" specular="0 0 0"/>
    <camera name="view" pos="1.45 -.5 .78" xyaxes=".54 .84 0 -.33 .21 .92"/>
    <camera name="top" pos="0 0 2.6" xyaxes="1 0 0 0 1 0"/>
    <geom name="floor" type="plane" pos="0 0 -.93" size="2.5 2.5 .1" material="floor"/>
    <geom name="pedestal" type="cylinder" fromto="0 0 -.93 0 0 0" size=".18" rgba="{BLACK}"/>
    <geom name="base" type="capsule" fromto="0 0 .04 0 0 .1" size=".09" rgba="{BLACK}"/>
    {arm}
    {things}
  </worldbody>
  <contact>
    {contacts}
  </contact>
  <actuator>
    {motors}
  </actuator>
  <sensor>{sensors}</sensor>
</mujoco>"""


def _arm(held: str) -> str:
    """The seven links from the hand inwards; every one of them floats, as the robot compensates its own weight."""
    inner = f"""<body name="right_hand" pos="{_numbers(HAND_POSITION)}" euler="0 0 {HAND_YAW}" gravcomp="1">
      <inertial pos="0 0 .045" mass=".3" diaginertia="4e-4 4e-4 3e-4"/>
      <site name="hand" size=".005" rgba="0 0 0 0"/>
      <geom name="gripper" type="capsule" fromto="0 0 0 0 0 .09" size=".03" rgba=".251 .251 .251 1"/>
      {held}</body>"""
    for index, link in reversed(list(enumerate(LINKS))):
        shapes = "".join(
            f'<geom name="{name}" type="capsule" fromto="{ends}" size="{radius}" rgba="{RED if index % 2 else BLACK}"/>'
            for name, ends, radius in link.capsules
        )
        head = _head() if index == 0 else ""
        inner = f"""<body name="right_{link.name}" pos="{_numbers(link.position)}" euler="{_numbers(link.rpy)}"
      gravcomp="1">
      <inertial pos="{_numbers(link.centre)}" mass="{link.mass}" fullinertia="{_numbers(link.inertia)}"/>
      <joint name="right_j{index}" axis="0 0 1" range="{_numbers(link.limits)}" damping="{link.damping}"
        armature="{link.armature}"/>
      {shapes}{head}
      {inner}</body>"""
    return inner


def _head() -> str:
    return f"""<body name="head" pos="0 0 .2965" gravcomp="1">
      <inertial pos=".0053207 -2.6549e-05 .1021" mass="1.5795"
        fullinertia=".011833 .0082709 .0049661 -4.4669e-06 4.9425e-05 4.2124e-07"/>
      <geom name="neck" type="capsule" fromto="-.005 0 .02 -.005 0 .205" size=".04" rgba="{BLACK}"/>
      <geom name="screen" type="box" pos=".025 0 .1" size=".01 .13 .08" rgba="{RED}"/></body>"""


def _table(height: float) -> str:
    return f'<geom name="table" type="plane" pos=".6 .05 {height}" size=".38 .55 .02" rgba=".87 .85 .8 1"/>'


def _held_brick(lead_in: float) -> str:
    """Four walls, a roof and four balls that touch studs; a box around all of it that touches everything else."""
    half, middle = BRICK_WIDTH / 2, BRICK_HEIGHT / 2
    inside = STUD_PITCH / 2 + STUD_RADIUS + CLEARANCE  # from the axis to the inner face of a wall
    across = (inside + half) / 2
    walls = "".join(
        f'<geom name="wall{i}" type="box" pos="{x} {y} {middle}" size="{a} {b} {middle}" mass=".002" rgba="{ORANGE}"/>'
        for i, (x, y, a, b) in enumerate(
            (
                (across, 0.0, WALL / 2, half),
                (-across, 0.0, WALL / 2, half),
                (0.0, across, half, WALL / 2),
                (0.0, -across, half, WALL / 2),
            )
        )
    )
    bottom = STUD_HEIGHT - ROOF_GAP
    roof = f"""<geom name="roof" type="box" pos="0 0 {(bottom + BRICK_HEIGHT) / 2}"
        size="{inside} {inside} {(BRICK_HEIGHT - bottom) / 2}" mass=".002" rgba="{ORANGE}"/>"""
    # On the diagonals, so far out that each is squeezed by the inner capsule of its stud.
    away = STUD_PITCH / 2 - _spread(lead_in) - (lead_in + BALL_RADIUS - INTERFERENCE) / 2**0.5
    balls = "".join(
        f'<geom name="ball{i}" type="sphere" size="{BALL_RADIUS}" pos="{a * away} {b * away} {BALL_RADIUS}" mass=".002"'
        f' rgba="{ORANGE}"/>'
        for i, (a, b) in enumerate(SIGNS)
    )
    hull = f'<geom name="hull" type="box" pos="0 0 {middle}" size="{half} {half} {middle}" mass="0" rgba="0 0 0 0"/>'
    return f"""<body name="brick" pos="{_numbers(BRICK_MOUNT)}" quat="0 .70710678 .70710678 0" gravcomp="1">
      <site name="brick" size=".002" rgba="0 0 0 0"/>
      {walls}{roof}{balls}{hull}</body>"""


def _spread(lead_in: float) -> float:
    """How far along x and along y the two capsules of a stud stand from its axis."""
    return STUD_RADIUS - lead_in


def _base_brick(lead_in: float) -> str:
    """A box with four studs, each of two upright capsules on the brick's diagonal.

    The outer one touches the walls exactly where the real stud would; the inner one stops walls that are in the wrong
    place. Their round tops are the lead-in: with flat studs a brick that is 0.05 mm off would not go in.
    """
    half, middle = BRICK_WIDTH / 2, BRICK_HEIGHT / 2
    studs = ""
    for stud, (a, b) in enumerate(SIGNS):
        x, y, top = a * STUD_PITCH / 2, b * STUD_PITCH / 2, BRICK_HEIGHT + STUD_HEIGHT
        capsules = "".join(
            f'<geom name="stud{stud}_{name}" type="capsule" size="{lead_in}" rgba="0 0 0 0" fromto="'
            f"{a * side * _spread(lead_in)} {b * side * _spread(lead_in)} {BRICK_HEIGHT} "
            f'{a * side * _spread(lead_in)} {b * side * _spread(lead_in)} {top - lead_in}"/>'
            for name, side in (("outer", 1), ("inner", -1))
        )
        studs += f"""<body name="stud{stud}" pos="{x} {y} 0">{capsules}
        <geom type="cylinder" fromto="0 0 {BRICK_HEIGHT} 0 0 {top}" size=".0046" rgba="{BLUE}"/>
        <site name="stud{stud}" type="box" pos="0 0 {top - STUD_HEIGHT / 2}" size=".007 .007 .004" rgba="0 0 0 0"/>
        </body>"""
    return f"""<body name="base_brick" pos="{GOAL[0]} {GOAL[1]} {TABLE_HEIGHT}">
      <geom name="base_brick" type="box" pos="0 0 {middle}" size="{half} {half} {middle}" rgba="{BLUE}"/>
      {studs}</body>"""


def _tower() -> str:
    middle = [goal + offset for goal, offset in zip(GOAL, TOWER_OFFSET, strict=True)]
    margin = [half + 0.005 for half in TOWER_HALF]
    return f"""<body name="tower" pos="{_numbers(middle)}">
      <geom name="tower" type="box" size="{_numbers(TOWER_HALF)}" rgba=".8 .7 .2 1"/>
      <site name="tower" type="box" size="{_numbers(margin)}" rgba="0 0 0 0"/></body>"""


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(map(repr, values))
