# caption_ros with ROS 2 Jazzy for the CPU. From the root of the repository:
#   docker build -f docker/cpu.Dockerfile -t caption_ros:cpu .
#   docker run --rm --network host --ipc host -v caption_cache:/cache caption_ros:cpu
# PyPI's torch for x86_64 is a CUDA build, some GB larger and as good on a CPU. For a small image
# name PyTorch's own index of CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
ARG ROS_IMAGE=ros:jazzy-ros-base
FROM ${ROS_IMAGE}
ARG PIP_EXTRA_INDEX_URL=
ENV DEBIAN_FRONTEND=noninteractive ROS_DISTRO=jazzy
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential \
        libgl1 \
        python3-dev \
        python3-venv \
        ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/src/caption_ros
COPY package.xml setup.py setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY resource/ resource/
COPY config/ config/
COPY launch/ launch/
COPY caption_ros/ caption_ros/
# apt's ROS is compiled for numpy 1.
RUN python3 -m venv --system-site-packages /opt/caption_ros \
    && /opt/caption_ros/bin/python -m pip install --no-cache-dir -c constraints.txt 'numpy<2' \
        '.[models,opencv,bags]' \
    && mkdir -p /opt/caption_ros/lib/caption_ros \
    && ln -s /opt/caption_ros/bin/caption_node /opt/caption_ros/bin/caption-ros \
        /opt/caption_ros/bin/scene_camera /opt/caption_ros/bin/speak \
        /opt/caption_ros/lib/caption_ros/

RUN useradd --create-home caption \
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
