# caption_ros with ROS 2 Jazzy over AMD's image of PyTorch. From the root of the repository:
#   docker build -f docker/rocm.Dockerfile -t caption_ros:rocm .
# How to run it: docs/rocm.md. Another ROCm: --build-arg ROCM_IMAGE=rocm/pytorch:<tag>, one with
# Ubuntu 24.04 and Python 3.12, which are those of Jazzy.
ARG ROCM_IMAGE=rocm/pytorch:rocm7.2_ubuntu24.04_py3.12_pytorch_release_2.9.1
ARG ROS_IMAGE=ros:jazzy-ros-base
FROM ${ROS_IMAGE} AS ros
# What lies in sources.list.d may be links to files elsewhere, which COPY would leave dangling.
RUN cp -rL /etc/apt/sources.list.d /ros-sources

FROM ${ROCM_IMAGE}
ENV DEBIAN_FRONTEND=noninteractive ROS_DISTRO=jazzy
# Where ROS comes from, and the key to check it with, are in its own image.
COPY --from=ros /ros-sources/ /etc/apt/sources.list.d/
COPY --from=ros /usr/share/keyrings/ /usr/share/keyrings/
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential \
        libgl1 \
        python3-dev \
        ros-jazzy-ros-base \
        ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/src/caption_ros
COPY package.xml setup.py setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY resource/ resource/
COPY config/ config/
COPY launch/ launch/
COPY caption_ros/ caption_ros/
# keep-torch: the image's own ROCm build stays. apt's ROS is compiled for numpy 1. ROCm brings
# amdsmi along in a folder that no Python knows of.
RUN python3 -m pip install --no-cache-dir 'opencv-python-headless<5' 'numpy<2' \
        '.[keep-torch,opencv,bags]' \
    && python3 -c 'import torch; assert torch.version.hip, torch.__version__' \
    && echo /opt/rocm/share/amd_smi \
        > "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/amdsmi.pth" \
    && ln -s "$(python3 -c 'import sys; print(sys.prefix)')" /opt/caption_ros \
    && mkdir -p /opt/caption_ros/lib/caption_ros \
    && ln -s /opt/caption_ros/bin/caption_node /opt/caption_ros/bin/caption-ros \
        /opt/caption_ros/bin/scene_camera /opt/caption_ros/bin/speak \
        /opt/caption_ros/lib/caption_ros/

# The number of the group render is the host's: docker run --group-add gives it.
RUN useradd --create-home --groups video caption \
    && install -d -o caption -g caption /cache /models
COPY --chmod=755 docker/entrypoint.sh /entrypoint.sh
ENV PATH=/opt/caption_ros/bin:$PATH \
    AMENT_PREFIX_PATH=/opt/caption_ros \
    FASTDDS_DEFAULT_PROFILES_FILE=/opt/caption_ros/share/caption_ros/config/fastdds.xml \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface \
    CAPTION_ROS_MODELS=/models
VOLUME ["/cache", "/models"]
USER caption
WORKDIR /home/caption
ENTRYPOINT ["/entrypoint.sh"]
CMD ["caption_node"]
